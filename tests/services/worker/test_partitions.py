"""Partitions of an agent on a real log: takeover, commits, hand-over."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest

from mesh.adapters.ports import Board, Commit, Log, Member
from mesh.app.wiring import topic_specs
from mesh.core.protocol.record import TopicPartition
from mesh.core.task.poison import CommitMarks, PoisonDetector
from tests.services.conftest import append, settled, working
from tests.services.worker.counting_agents import TOPOLOGY, Answer, Ask, answers, counts, task, topology, until, worker


async def test_only_the_finished_prefix_is_committed(log: Log, board: Board) -> None:
    gate = asyncio.Event()

    async def echo(ask: Ask) -> Answer:
        if ask.n == 0:
            await gate.wait()
        return Answer(n=ask.n)

    mesh = topology(timeout="60s")
    async with working(log, mesh, worker(log, board, echo, mesh).run):
        await append(log, *(task(n)._replace(partition=0) for n in range(5)))
        await answers(log, 4)
        clock_s = time.monotonic() + 0.3
        while time.monotonic() < clock_s:
            place = (await log.committed("mesh.echo", TOPOLOGY.tasks("echo"))).get(0)
            assert place is None or place.offset == 0
            await asyncio.sleep(0.01)
        gate.set()
        await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))


async def test_tasks_that_wait_for_their_marks_wait_for_one_commit(
    log: Log, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    await log.create_topics(topic_specs(TOPOLOGY))
    await append(log, *(task(n)._replace(partition=0) for n in range(3_000)))
    commits = 0
    join = log.join

    async def counting(*arguments: Any, **options: Any) -> Member:
        member = await join(*arguments, **options)
        commit = member.commit

        async def count(places: Mapping[TopicPartition, Commit]) -> None:
            nonlocal commits
            commits += 1
            await asyncio.sleep(0.02)  # as far as a broker is away
            await commit(places)

        monkeypatch.setattr(member, "commit", count)
        return member

    monkeypatch.setattr(log, "join", counting)
    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await answers(log, 3_000)
    assert commits < 30  # not one for each of 64 lanes


async def test_two_workers_share_an_agents_tasks(log: Log, board: Board) -> None:
    seen: dict[str, set[int]] = {"one": set(), "two": set()}

    def made(name: str) -> Callable[..., Any]:
        async def echo(ask: Ask) -> Answer:
            seen[name].add(ask.n)
            return Answer(n=ask.n)

        return echo

    first, second = worker(log, board, made("one")), worker(log, board, made("two"))
    async with working(log, TOPOLOGY, first.run):
        await first.wait_ready()
        async with working(log, TOPOLOGY, second.run):
            await second.wait_ready()
            await append(log, *(task(n) for n in range(200)))
            await answers(log, 200)
    assert seen["one"]
    assert seen["two"]
    assert seen["one"] | seen["two"] == set(range(200))


async def test_a_short_session_does_not_cut_short_the_tasks_of_a_revoked_partition(log: Log, board: Board) -> None:
    gate, begun, elsewhere = asyncio.Event(), list[int](), list[int]()

    async def waits(ask: Ask) -> Answer:
        begun.append(ask.n)
        await gate.wait()
        return Answer(n=ask.n)

    async def echo(ask: Ask) -> Answer:
        elsewhere.append(ask.n)
        return Answer(n=ask.n)

    first, second = worker(log, board, waits), worker(log, board, echo)
    async with working(log, TOPOLOGY, first.run):
        await append(log, *(task(n) for n in range(20)))
        await until(lambda: len(begun) == 20)
        async with working(log, TOPOLOGY, second.run):
            await until(lambda: len(first.consumers["echo"].partitions.owned) < 2)
            asyncio.get_running_loop().call_later(0.8, gate.set)  # a third of the session is 0.67 s
            await answers(log, 20)
            await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))
    assert (sorted(begun), elsewhere) == (list(range(20)), [])


async def test_a_task_that_runs_on_while_its_partition_goes_and_comes_back_is_not_begun_again(
    log: Log, board: Board
) -> None:
    gate, numbers = asyncio.Event(), range(20)
    begun: Counter[int] = Counter()

    async def waits(ask: Ask) -> Answer:
        begun[ask.n] += 1
        await gate.wait()
        return Answer(n=ask.n)

    async def hangs(ask: Ask) -> Answer:
        elsewhere.set()
        await asyncio.Event().wait()
        return Answer(n=0)

    mesh, elsewhere = topology(timeout="60s"), asyncio.Event()
    first, second = worker(log, board, waits, mesh), worker(log, board, hangs, mesh, drain_ms=50, grace_ms=50)
    async with working(log, mesh, first.run):
        await append(log, *(task(n) for n in numbers))
        await until(lambda: len(begun) == len(numbers))
        async with working(log, mesh, second.run):
            await elsewhere.wait()
        await until(lambda: first.consumers["echo"].lanes.queued > 0)  # they came again, and wait for the first
        gate.set()
        await settled(log, "mesh.echo", TOPOLOGY.tasks("echo"))
    assert begun == Counter(numbers)
    assert sorted(a.task_id for a in await answers(log, len(numbers))) == sorted(f"t{n}" for n in numbers)


class Bystander:
    """A member of the group that only says something."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.told.set()

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        pass


@pytest.mark.parametrize("away", [True, False])
async def test_a_worker_that_returns_after_an_outage_takes_no_other_for_dead(
    log: Log, board: Board, away: bool
) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    topic, bystander = TOPOLOGY.tasks("echo"), Bystander()
    await log.create_topics(topic_specs(TOPOLOGY))
    member = await log.join("mesh.echo", [topic], bystander, session_timeout_ms=2_000)
    async with asyncio.timeout(10):
        while not bystander.told.is_set():
            await member.poll(records_max=1, wait_ms=10)
    working_on = PoisonDetector(CommitMarks(), place=0, end=0, by="another").metadata(0)
    await member.commit({TopicPartition(topic, 0): Commit(0, working_on)})
    await member.close()
    crew = worker(log, board, echo, after_outage=away)
    async with working(log, TOPOLOGY, crew.run):
        await append(log, *(task(n) for n in range(5)))
        await answers(log, 5)
    assert counts(crew).deaths == (0 if away else 1)


class Slow:
    """A log, or its member, that answers what was committed only when a gate is open."""

    def __init__(self, real: Any, asked: asyncio.Event, gate: asyncio.Event) -> None:
        self._real, self._asked, self._gate = real, asked, gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def join(self, *args: Any, **kwargs: Any) -> Any:
        return Slow(await self._real.join(*args, **kwargs), self._asked, self._gate)

    async def committed(self, partition: TopicPartition) -> Commit | None:
        self._asked.set()
        await self._gate.wait()
        return cast("Commit | None", await self._real.committed(partition))


async def test_a_partition_that_was_revoked_while_it_was_taken_over_is_no_sign_of_a_death(
    log: Log, board: Board
) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    asked, gate = asyncio.Event(), asyncio.Event()
    first, second = worker(cast("Log", Slow(log, asked, gate)), board, echo), worker(log, board, echo)
    async with working(log, TOPOLOGY, first.run):
        await asked.wait()
        async with working(log, TOPOLOGY, second.run):
            await second.wait_ready()  # it is at work on partitions that the first one was about to take over
            gate.set()
            await first.wait_ready()
            await append(log, *(task(n) for n in range(20)))
            await answers(log, 20)
    assert (counts(first).deaths, counts(second).deaths) == (0, 0)
