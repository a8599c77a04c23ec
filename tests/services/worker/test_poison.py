"""Suspects are begun marked, or apart, or not at all; what the log says of them comes first."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mesh import Payload
from mesh.core.board.changelog import BoardChange
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import StoredRecord, TopicPartition
from mesh.core.task.agent import Agent, describe
from mesh.core.task.poison import APART_DEATHS_MAX, MARKED_MAX, CommitMarks, PoisonDetector, decode
from mesh.runtime.execution.isolation import CallRequest, NotLoaded
from mesh.services.worker.assignment import Held, Work
from mesh.services.worker.attempt import Attempt
from mesh.services.worker.poison import MarkSlots, PoisonGuard

ENDS_ALL = 4
PLACE = TopicPartition("mesh.tasks.echo", 0)


class Ask(Payload, type="ask"):
    n: int


async def echo(ask: Ask) -> None: ...


class Cells:
    """Places that are only spoken of."""

    def __init__(self, desk: "Desk") -> None:
        self.desk = desk

    def can_run(self, agent: Agent) -> bool:
        return agent.function is echo

    @asynccontextmanager
    async def acquire(self, where: str) -> AsyncIterator["Cells"]:
        self.desk.told.append(f"cell for {where.partition(':')[2]}")
        if self.desk.unloadable:
            raise NotLoaded("no such module")
        await asyncio.sleep(0)
        yield self
        self.desk.told.append("cell free")

    async def answer(self, order: CallRequest, changed: Callable[[BoardChange], None] | None) -> Event:
        raise NotImplementedError

    async def close(self) -> None: ...


class Desk:
    """One partition with suspects, and everything that happened to them, in order."""

    def __init__(self, found: CommitMarks, function: Callable[..., object] = echo) -> None:
        self.held = Held(PLACE)
        self.held.begin(PoisonDetector(found, place=0, end=10), 0)
        self.marks = MarkSlots()
        self.told: list[str] = []
        self.fenced = 0
        self.ending = self.kills = self.unloadable = False
        self.suspects = PoisonGuard(
            *(describe(function), self.marks, Cells(self)),
            changes=lambda: None,
            say=self.say,
            do=self.do,
            condemn=lambda work, deaths: self.told.append(f"condemn {work.record.offset} {deaths}"),
            news=lambda: self.told.append("news"),
            ending=lambda: self.ending,
        )

    async def commit(self, held: Held) -> bool:
        if self.fenced:
            self.fenced -= 1
            self.told.append("fenced")
            return False
        if saying := held.saying(working=True):
            marks = decode(saying.commit.metadata, saying.commit.offset)
            self.told.append(f"marked {sorted(marks.marked)}")
            held.was_said(saying)
        return True

    async def say(self, held: Held) -> bool:
        while held.live and not await self.commit(held):  # noqa: ASYNC110  # as the shift does
            await asyncio.sleep(0)
        return held.live

    async def do(self, attempt: Attempt) -> None:
        self.told.append(f"do {attempt.work.record.offset}{'' if attempt.cell is None else ' apart'}")
        await asyncio.sleep(0)
        self.ending = attempt.work.record.offset == ENDS_ALL
        if self.kills and attempt.cell is not None:
            attempt.killed = True
            self.held.watch.condemn(attempt.work.record.offset)

    async def handle(self, offset: int) -> list[str]:
        self.told.clear()
        record = StoredRecord(PLACE.topic, 0, offset, 0, b"k", b"{}", [])
        await self.suspects.handle(Work(record, self.held))
        return self.told


FOUND = CommitMarks(True, 8, 8, frozenset({3}), {5: 3})
"""All below 8 may have been begun; 3 was marked at a second death; 5 was there at three."""


async def test_a_suspect_is_marked_in_the_log_before_it_begins() -> None:
    desk = Desk(FOUND)
    assert await desk.handle(1) == ["marked [1]", "do 1", "news"]
    assert desk.marks.free == MARKED_MAX


async def test_what_was_marked_at_a_death_is_begun_apart_and_cleared() -> None:
    desk = Desk(FOUND)
    assert await desk.handle(3) == ["cell for echo", "marked [3]", "do 3 apart", "news", "cell free"]
    assert desk.held.watch.death_count(3) == 1


async def test_who_kills_its_cell_is_not_begun_again_though_its_answer_was_lost() -> None:
    desk = Desk(FOUND)
    desk.kills = True
    assert await desk.handle(3) == ["cell for echo", "marked [3]", "do 3 apart", "news", "cell free"]
    heir = Desk(decode(desk.held.watch.metadata(0), 0))
    assert await heir.handle(3) == [f"condemn 3 {APART_DEATHS_MAX}"]


async def test_deaths_of_the_worker_around_a_cell_condemn_in_the_end() -> None:
    for deaths in range(2, APART_DEATHS_MAX):
        assert "do 5 apart" in await Desk(CommitMarks(True, 8, 8, frozenset(), {5: deaths})).handle(5)
    assert await Desk(CommitMarks(True, 8, 8, frozenset(), {5: APART_DEATHS_MAX})).handle(5) == [
        f"condemn 5 {APART_DEATHS_MAX}"
    ]


async def test_a_function_that_cannot_be_loaded_apart_is_begun_here_and_its_third_death_condemns() -> None:
    desk = Desk(FOUND)
    desk.unloadable = True
    assert await desk.handle(3) == ["cell for echo", "marked [3]", "do 3", "news"]
    assert await desk.handle(5) == ["cell for echo", "condemn 5 3"]
    assert desk.marks.free == MARKED_MAX


async def test_a_function_that_no_other_process_could_find_is_begun_here_and_marked() -> None:
    async def hidden(ask: Ask) -> None: ...

    assert await Desk(FOUND, hidden).handle(3) == ["marked [3]", "do 3", "news"]


async def test_without_cells_what_was_there_at_three_deaths_is_not_begun() -> None:
    async def hidden(ask: Ask) -> None: ...

    assert await Desk(FOUND, hidden).handle(5) == ["condemn 5 3"]


async def test_nothing_begins_until_the_log_has_said_so() -> None:
    desk = Desk(FOUND)
    desk.fenced = 2
    assert await desk.handle(1) == ["fenced", "fenced", "marked [1]", "do 1", "news"]


async def test_who_is_at_work_when_all_ends_for_an_error_is_suspected_by_who_comes_next() -> None:
    desk = Desk(FOUND)
    assert await desk.handle(ENDS_ALL) == ["marked [4]", "do 4"]
    heir = PoisonDetector(decode(desk.held.watch.metadata(0), 0), place=0, end=10)
    assert heir.death_count(ENDS_ALL) == 2


@pytest.mark.parametrize("offset", [1, 3])
async def test_nothing_begins_of_a_partition_that_was_lost_meanwhile(offset: int) -> None:
    desk = Desk(FOUND)
    desk.held.live = False
    assert "do" not in " ".join(await desk.handle(offset))
    assert desk.marks.free == MARKED_MAX


async def test_only_so_many_are_marked_at_once_or_a_single_one() -> None:
    places = MarkSlots()
    for _ in range(MARKED_MAX):
        await places.take(1)
    alone = asyncio.create_task(places.take(MARKED_MAX))
    await asyncio.sleep(0)
    late = asyncio.create_task(places.take(1))
    for _ in range(MARKED_MAX):
        await asyncio.sleep(0)
        assert not alone.done()
        places.give(1)
    await alone
    await asyncio.sleep(0)
    assert not late.done()
    places.give(MARKED_MAX)
    await late
    assert places.free == MARKED_MAX - 1


async def test_who_gives_up_waiting_keeps_nobodys_place() -> None:
    places = MarkSlots()
    await places.take(2)
    waiting = [asyncio.create_task(places.take(MARKED_MAX)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert places.free == MARKED_MAX - 2
