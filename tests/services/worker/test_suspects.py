"""Suspects are begun marked, or alone, or not at all; what the log says of them comes first."""

import asyncio
from collections.abc import Iterable

import pytest

from mesh.core.crashes import Marks, Watch, decode
from mesh.core.record import StoredRecord, TopicPartition
from mesh.services.worker.attempt import Attempt
from mesh.services.worker.held import Held, Work
from mesh.services.worker.solo import Solo
from mesh.services.worker.suspects import Suspects

ENDS_ALL = 4
PLACE = TopicPartition("mesh.tasks.echo", 0)


class Desk:
    """One partition with suspects, and everything that happened to them, in order."""

    def __init__(self, found: Marks) -> None:
        self.held = Held(PLACE)
        self.held.begin(Watch(found, place=0, end=10), 0)
        self.solo = Solo()
        self.told: list[str] = []
        self.fenced = 0
        self.ending = False
        self.suspects = Suspects(
            self.solo,
            changes=lambda: None,
            commit=self.commit,
            say=self.say,
            do=self.do,
            condemn=lambda work, deaths: self.told.append(f"condemn {work.record.offset} {deaths}"),
            news=lambda: self.told.append("news"),
            ending=lambda: self.ending,
        )

    async def commit(self, partitions: Iterable[Held], *, working: bool = True) -> bool:
        if self.fenced:
            self.fenced -= 1
            self.told.append("fenced")
            return False
        for held in partitions:
            if held.live is working and (saying := held.saying(working=working)):
                marks = decode(saying.commit.metadata, saying.commit.offset)
                self.told.append(f"marked {sorted(marks.marked)}{' alone' if marks.alone else ''}")
                held.was_said(saying)
        return True

    async def say(self, held: Held) -> bool:
        while held.live and not await self.commit([held]):  # noqa: ASYNC110  # as the shift does
            await asyncio.sleep(0)
        return held.live

    async def do(self, attempt: Attempt) -> None:
        self.told.append(f"do {attempt.work.record.offset}")
        await asyncio.sleep(0)
        self.ending = attempt.work.record.offset == ENDS_ALL

    async def handle(self, offset: int) -> list[str]:
        self.told.clear()
        record = StoredRecord(PLACE.topic, 0, offset, 0, b"k", b"{}", [])
        await self.suspects.handle(Work(record, self.held))
        return self.told


FOUND = Marks(True, 8, 8, frozenset({3}), False, {5: 3})
"""All below 8 may have been begun; 3 was marked at a second death; 5 was there at three."""


async def test_a_suspect_is_marked_in_the_log_before_it_begins() -> None:
    desk = Desk(FOUND)
    assert await desk.handle(1) == ["marked [1]", "do 1", "news"]
    assert desk.solo.inside == 0


async def test_what_was_marked_at_a_death_is_begun_alone_and_cleared_at_once() -> None:
    desk = Desk(FOUND)
    assert await desk.handle(3) == ["marked [3] alone", "do 3", "marked []", "news"]
    assert desk.held.watch.suspicion(3) == 1


async def test_what_was_there_at_three_deaths_is_not_begun() -> None:
    assert await Desk(FOUND).handle(5) == ["condemn 5 3"]


async def test_nothing_begins_until_the_log_has_said_so() -> None:
    desk = Desk(FOUND)
    desk.fenced = 2
    assert await desk.handle(1) == ["fenced", "fenced", "marked [1]", "do 1", "news"]


async def test_who_is_at_work_when_all_ends_for_an_error_is_suspected_by_who_comes_next() -> None:
    desk = Desk(FOUND)
    assert await desk.handle(ENDS_ALL) == ["marked [4]", "do 4"]
    heir = Watch(decode(desk.held.watch.metadata(0), 0), place=0, end=10)
    assert heir.suspicion(ENDS_ALL) == 2


@pytest.mark.parametrize("offset", [1, 3])
async def test_nothing_begins_of_a_partition_that_was_lost_meanwhile(offset: int) -> None:
    desk = Desk(FOUND)
    desk.held.live = False
    assert "do" not in " ".join(await desk.handle(offset))
    async with asyncio.timeout(5):
        await desk.solo.enter_alone()  # nobody is left inside
