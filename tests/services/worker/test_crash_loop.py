"""Worker processes that die, on one file: three starts identify the poison task, and all others continue."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from mesh.adapters.ports import Log
from mesh.app.wiring import topic_specs
from mesh.core.protocol.event import Event
from mesh.core.task.poison import decode
from tests.services.conftest import DEADLINE_S, append, read_all, settled
from tests.services.worker.counting_agents import TOPOLOGY, answers, task, until
from tests.services.worker.poison_agents import CANCELS_ALL

ROOT = Path(__file__).parents[3]
TOPIC = TOPOLOGY.tasks("echo")


class Workers:
    """Processes that are started again when they die."""

    def __init__(self, folder: Path, number: int, where: str = "apart") -> None:
        self.file, self.starts = folder / "mesh.db", folder / "starts"
        self.deaths = 0
        self.pids: dict[int, int] = {}
        self._number, self._where = number, where
        self._stopping = False
        self._killed: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def begun(self) -> Counter[int]:
        """Return the number of starts of each task."""
        if not self.starts.exists():
            return Counter()
        return Counter(int(line.split()[0]) for line in self.starts.read_text().splitlines())

    async def _keep(self, number: int) -> None:
        while not self._stopping:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.services.worker.child", str(self.file), self._where),
                cwd=ROOT,
                env={**os.environ, "STARTS": str(self.starts)},
            )
            self.pids[number] = process.pid
            code = await process.wait()
            del self.pids[number]
            if not self._stopping:
                assert code == (-signal.SIGKILL if process.pid in self._killed else 1)
                self.deaths += 1

    def kill(self, number: int) -> None:
        """As the operating system would."""
        self._killed.add(self.pids[number])
        os.kill(self.pids[number], signal.SIGKILL)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Workers"]:
        """Kept alive inside, ended in good order afterwards."""
        self._tasks = [asyncio.create_task(self._keep(number)) for number in range(self._number)]
        try:
            yield self
        finally:
            self._stopping = True
            for pid in self.pids.values():
                os.kill(pid, signal.SIGTERM)
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.gather(*self._tasks)


async def test_a_task_that_ends_its_process_in_good_order_is_found_like_any_other(log: Log, tmp_path: Path) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    numbers = [*range(1, 30), CANCELS_ALL, *range(30, 60)]
    await append(log, *(task(n) for n in numbers))
    async with Workers(tmp_path, 1).running() as workers:
        found = {a.task_id: a for a in await answers_of(log, numbers)}
        await settled(log, "mesh.echo", TOPIC)
    assert (workers.begun[CANCELS_ALL], workers.deaths) == (3, 2)
    killer = found.pop(f"t{CANCELS_ALL}")
    assert killer.fault is not None
    assert killer.fault.code == "crash_loop"
    assert {a.kind for a in found.values()} == {"succeeded"}


@pytest.mark.parametrize(
    ("number", "where", "deaths"), [(1, "apart", 2), (2, "apart", 2), (1, "here", 3), (2, "here", 3)]
)
async def test_a_task_that_kills_its_process_is_begun_three_times_and_the_others_are_done(
    log: Log, tmp_path: Path, number: int, where: str, deaths: int
) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    numbers = [*range(1, 60), -1, *range(60, 100)]
    await append(log, *(task(n) for n in numbers))
    async with Workers(tmp_path, number, where).running() as workers:
        found = {a.task_id: a for a in await answers_of(log, numbers)}
        await settled(log, "mesh.echo", TOPIC)
    assert workers.begun[-1] == 3
    assert workers.deaths == deaths
    killer = found.pop("t-1")
    assert killer.fault is not None
    assert (killer.kind, killer.fault.code, killer.fault.retryable) == ("failed", "crash_loop", False)
    assert (killer.data, killer.usage) == (b'{"n":-1}', None)
    assert {a.kind for a in found.values()} == {"succeeded"}
    places = await log.committed("mesh.echo", TOPIC)
    assert not any(decode(place.metadata, place.offset).working for place in places.values())


async def test_a_killer_that_was_sent_twice_is_begun_three_times_all_the_same(log: Log, tmp_path: Path) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    await append(log, *(task(n) for n in (-1, -1, 1, -1, 2)))
    async with Workers(tmp_path, 1).running() as workers:
        found = await answers_of(log, [-1, 1, 2])
        await settled(log, "mesh.echo", TOPIC)
    assert {a.task_id: a.kind for a in found} == {"t-1": "failed", "t1": "succeeded", "t2": "succeeded"}
    assert (workers.begun[-1], workers.deaths) == (3, 2)


async def test_two_poison_tasks_at_once_are_both_found_and_no_other_task(log: Log, tmp_path: Path) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    numbers = [*range(1, 20), -1, -2, *range(20, 40)]
    await append(log, *(task(n) for n in numbers))
    async with Workers(tmp_path, 2).running() as workers:
        found = {a.task_id: a for a in await answers_of(log, numbers)}
        await settled(log, "mesh.echo", TOPIC)
    condemned = {id for id, a in found.items() if a.fault is not None and a.fault.code == "crash_loop"}
    assert condemned == {"t-1", "t-2"}
    assert {a.kind for id, a in found.items() if id not in condemned} == {"succeeded"}
    assert max(workers.begun[-1], workers.begun[-2]) == 3


async def test_a_process_that_is_killed_once_slows_nothing_and_makes_no_task_suspected(
    log: Log, tmp_path: Path
) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    numbers = list(range(1_000, 1_016))
    await append(log, *(task(n)._replace(partition=0) for n in numbers))
    async with Workers(tmp_path, 1).running() as workers:
        await until(lambda: len(workers.begun) == 16)
        workers.kill(0)
        await until(lambda: workers.deaths == 1)
        await until(lambda: workers.begun.total() == 32)
        # Each takes a second. One after another, fifteen would have been answered before the last one begins.
        assert len(await read_all(log, TOPOLOGY.inbox)) < 8
        assert {a.kind for a in await answers_of(log, numbers)} == {"succeeded"}
    assert set(workers.begun.values()) == {2}


async def test_processes_that_are_killed_from_outside_again_and_again_make_no_task_a_killer(
    log: Log, tmp_path: Path
) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    numbers = list(range(2_000, 2_012))
    await append(log, *(task(n)._replace(partition=0) for n in numbers))
    async with Workers(tmp_path, 1).running() as workers:
        for _ in range(3):
            begun, deaths = workers.begun.total(), workers.deaths
            await until(partial(_more, workers, begun, deaths))
            workers.kill(0)
            await until(partial(_more, workers, 0, deaths + 1))
        assert {a.kind for a in await answers_of(log, numbers)} == {"succeeded"}


def _more(workers: Workers, begun: int, deaths: int) -> bool:
    """Whether more has begun, and so many have died."""
    return workers.begun.total() > begun and workers.deaths >= deaths


async def answers_of(log: Log, numbers: list[int]) -> list[Event]:
    """The first answer of each of these tasks; one that was repeated has several."""
    found: dict[str, Event] = {}
    async with asyncio.timeout(DEADLINE_S):
        while len(found) < len(numbers):
            for answer in await answers(log, len(await read_all(log, TOPOLOGY.inbox)) or 1):
                found.setdefault(answer.task_id, answer)
            await asyncio.sleep(0.01)
    return list(found.values())
