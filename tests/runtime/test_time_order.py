"""Reading many partitions by log time, on an embedded log whose clock is moved by hand."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.adapters.ports import TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.core.protocol.record import NewRecord, Record
from mesh.runtime.log_reader import RECORDS_MAX
from mesh.runtime.time_order import Spans, read_by_time
from tests.runtime.test_unserved_tasks import HandClock


class Timed:
    """A log, and its clock."""

    def __init__(self, folder: Path) -> None:
        self.clock = HandClock()
        self.first_ms = self.clock.at_ms
        self.log = SqliteLog(folder / "mesh.db", clock=self.clock)

    async def write(self, at_ms: int, *places: tuple[str, int]) -> None:
        """Append a record to each partition, so many milliseconds after the first."""
        self.clock.at_ms = self.first_ms + at_ms
        await self.log.append([NewRecord(topic, None, b"", (), number) for topic, number in places])

    async def spans(self, *topics: str) -> Spans:
        """All of these topics."""
        return {topic: await self.log.bounds(topic) for topic in topics}

    async def read(self, *, earlier: Spans, leading: Spans, following: Spans) -> list[Record]:
        """Read all, by time."""
        async with aclosing(read_by_time(self.log, earlier, leading, following)) as batches:
            return [record async for batch in batches for record in batch]


@pytest.fixture
async def timed(tmp_path: Path) -> AsyncIterator[Timed]:
    timed = Timed(tmp_path)
    await timed.log.start()
    await timed.log.create_topics([TopicSpec("asks", 1), TopicSpec("inbox", 2), TopicSpec("tasks", 2)])
    yield timed
    await timed.log.close()


async def test_what_follows_comes_after_its_cause_and_before_much_later_causes(timed: Timed) -> None:
    rounds = 3 * RECORDS_MAX
    for n in range(rounds):
        await timed.write(10 * n, ("asks", 0))
        await timed.write(10 * n + 1, ("inbox", n % 2))
        await timed.write(10 * n + 5, ("tasks", n % 2))
    found = await timed.read(
        earlier=await timed.spans("asks"), leading=await timed.spans("inbox"), following=await timed.spans("tasks")
    )
    assert len(found) == 3 * rounds
    for place in {(record.topic, record.partition) for record in found}:
        offsets = [record.offset for record in found if (record.topic, record.partition) == place]
        assert offsets == sorted(offsets)
    order = {(record.topic, (record.timestamp - timed.first_ms) // 10): n for n, record in enumerate(found)}
    for n in range(rounds):
        assert order["asks", n] < order["inbox", n] < order["tasks", n]
    waits = [order["tasks", n] - order["inbox", n] for n in range(rounds)]
    assert max(waits) <= 3 * 2 * RECORDS_MAX  # batches of both partitions, and what lies between; not the whole log


async def test_what_follows_in_the_same_millisecond_is_read_later(timed: Timed) -> None:
    for n in range(2):
        await timed.write(0, ("tasks", n), ("inbox", n))
    found = await timed.read(earlier={}, leading=await timed.spans("inbox"), following=await timed.spans("tasks"))
    assert [record.topic for record in found] == ["inbox", "inbox", "tasks", "tasks"]


async def test_topics_without_any_leader_are_read_whole(timed: Timed) -> None:
    await timed.write(0, ("tasks", 0), ("tasks", 1), ("asks", 0))
    spans = await timed.spans("inbox")
    found = await timed.read(earlier=await timed.spans("asks"), leading=spans, following=await timed.spans("tasks"))
    assert [record.topic for record in found] == ["asks", "tasks", "tasks"]
