"""Suspected tasks are begun marked, or isolated, or not at all, after the log says so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mesh import Payload
from mesh.core.board.changelog import BoardChange
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import StoredRecord, TopicPartition
from mesh.core.task.agent import Agent, describe
from mesh.core.task.poison import ISOLATED_DEATHS_MAX, MARKED_MAX, CommitMarks, PoisonDetector, decode
from mesh.runtime.execution.isolation import CallRequest, NotLoaded
from mesh.services.worker.assignment import PartitionAssignment, Work
from mesh.services.worker.attempt import Attempt
from mesh.services.worker.environment import MarkSlots
from mesh.services.worker.poison import PoisonGuard

ENDS_ALL = 4
PARTITION = TopicPartition("mesh.tasks.echo", 0)


class Ask(Payload, type="ask"):
    n: int


async def echo(ask: Ask) -> None: ...


class FakeCells:
    """Isolated processes that only note their use."""

    def __init__(self, runner: "Runner") -> None:
        self.runner = runner

    def can_run(self, agent: Agent) -> bool:
        return agent.function is echo

    @asynccontextmanager
    async def acquire(self, where: str) -> AsyncIterator["FakeCells"]:
        self.runner.events.append(f"cell for {where.partition(':')[2]}")
        if self.runner.unloadable:
            raise NotLoaded("no such module")
        await asyncio.sleep(0)
        yield self
        self.runner.events.append("cell free")

    async def answer(self, order: CallRequest, changed: Callable[[BoardChange], None] | None) -> Event:
        raise NotImplementedError

    async def close(self) -> None: ...


class Runner:
    """A consumer with one partition with suspected tasks. `events`: what happened to them, in order."""

    def __init__(self, found: CommitMarks, function: Callable[..., object] = echo) -> None:
        self.assignment = PartitionAssignment(PARTITION)
        self.assignment.start(PoisonDetector(found, place=0, end=10), 0)
        self.slots = MarkSlots()
        self.events: list[str] = []
        self.fenced = 0
        self.ending = self.kills = self.unloadable = False
        self.guard = PoisonGuard(describe(function), self.slots, FakeCells(self), self)

    def new_changes(self) -> None: ...

    def is_ending(self) -> bool:
        return self.ending

    def request_commit(self) -> None:
        self.events.append("commit soon")

    def mark_poison(self, work: Work, deaths: int) -> None:
        self.events.append(f"mark_poison {work.record.offset} {deaths}")

    async def commit(self, assignment: PartitionAssignment) -> bool:
        if self.fenced:
            self.fenced -= 1
            self.events.append("fenced")
            return False
        if due := assignment.next_commit(working=True):
            marks = decode(due.commit.metadata, due.commit.offset)
            self.events.append(f"marked {sorted(marks.marked)}")
            assignment.record_commit(due)
        return True

    async def commit_marks(self, assignment: PartitionAssignment) -> bool:
        while assignment.is_owned and not await self.commit(assignment):  # noqa: ASYNC110  # as the consumer does
            await asyncio.sleep(0)
        return assignment.is_owned

    async def run_attempt(self, attempt: Attempt) -> None:
        self.events.append(f"do {attempt.work.record.offset}{'' if attempt.isolated_process is None else ' apart'}")
        await asyncio.sleep(0)
        self.ending = attempt.work.record.offset == ENDS_ALL
        if self.kills and attempt.isolated_process is not None:
            attempt.killed = True
            self.assignment.watch.mark_poison(attempt.work.record.offset)

    async def handle(self, offset: int) -> list[str]:
        self.events.clear()
        record = StoredRecord(PARTITION.topic, 0, offset, 0, b"k", b"{}", [])
        await self.guard.handle(Work(record, self.assignment))
        return self.events


FOUND = CommitMarks(True, 8, 8, frozenset({3}), {5: 3})
"""All below 8 may have been begun; 3 was marked at a second death; 5 was there at three."""


async def test_a_suspect_is_marked_in_the_log_before_it_begins() -> None:
    runner = Runner(FOUND)
    assert await runner.handle(1) == ["marked [1]", "do 1", "commit soon"]
    assert runner.slots.free == MARKED_MAX


async def test_what_was_marked_at_a_death_is_begun_apart_and_cleared() -> None:
    runner = Runner(FOUND)
    assert await runner.handle(3) == ["cell for echo", "marked [3]", "do 3 apart", "commit soon", "cell free"]
    assert runner.assignment.watch.death_count(3) == 1


async def test_a_task_that_kills_its_isolated_process_is_not_begun_again_though_its_answer_was_lost() -> None:
    runner = Runner(FOUND)
    runner.kills = True
    assert await runner.handle(3) == ["cell for echo", "marked [3]", "do 3 apart", "commit soon", "cell free"]
    heir = Runner(decode(runner.assignment.watch.metadata(0), 0))
    assert await heir.handle(3) == [f"mark_poison 3 {ISOLATED_DEATHS_MAX}"]


async def test_repeated_deaths_of_the_worker_around_an_isolated_process_give_the_task_up() -> None:
    for deaths in range(2, ISOLATED_DEATHS_MAX):
        assert "do 5 apart" in await Runner(CommitMarks(True, 8, 8, frozenset(), {5: deaths})).handle(5)
    assert await Runner(CommitMarks(True, 8, 8, frozenset(), {5: ISOLATED_DEATHS_MAX})).handle(5) == [
        f"mark_poison 5 {ISOLATED_DEATHS_MAX}"
    ]


async def test_a_function_that_cannot_be_loaded_apart_is_begun_here_and_its_third_death_condemns() -> None:
    runner = Runner(FOUND)
    runner.unloadable = True
    assert await runner.handle(3) == ["cell for echo", "marked [3]", "do 3", "commit soon"]
    assert await runner.handle(5) == ["cell for echo", "mark_poison 5 3"]
    assert runner.slots.free == MARKED_MAX


async def test_a_function_that_no_other_process_could_find_is_begun_here_and_marked() -> None:
    async def hidden(ask: Ask) -> None: ...

    assert await Runner(FOUND, hidden).handle(3) == ["marked [3]", "do 3", "commit soon"]


async def test_without_isolated_processes_a_task_in_flight_at_three_deaths_is_not_begun() -> None:
    async def hidden(ask: Ask) -> None: ...

    assert await Runner(FOUND, hidden).handle(5) == ["mark_poison 5 3"]


async def test_nothing_begins_until_the_log_has_said_so() -> None:
    runner = Runner(FOUND)
    runner.fenced = 2
    assert await runner.handle(1) == ["fenced", "fenced", "marked [1]", "do 1", "commit soon"]


async def test_a_task_in_work_when_a_worker_ends_with_an_error_is_suspected_by_the_next_one() -> None:
    runner = Runner(FOUND)
    assert await runner.handle(ENDS_ALL) == ["marked [4]", "do 4"]
    heir = PoisonDetector(decode(runner.assignment.watch.metadata(0), 0), place=0, end=10)
    assert heir.death_count(ENDS_ALL) == 2


@pytest.mark.parametrize("offset", [1, 3])
async def test_nothing_begins_of_a_partition_that_was_lost_meanwhile(offset: int) -> None:
    runner = Runner(FOUND)
    runner.assignment.is_owned = False
    assert "do" not in " ".join(await runner.handle(offset))
    assert runner.slots.free == MARKED_MAX
