"""Reading from one offset to another."""

from contextlib import aclosing

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, Clock, Log, TopicSpec
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord
from mesh.runtime.log_reader import (
    RECORDS_MAX,
    SILENCE_MS_MAX,
    bounds_between,
    read_batches,
    read_records,
    record_at,
    records_at,
)
from tests.runtime.checkpoint_kit import INBOX, log, request
from tests.services.conftest import append

__all__ = ["log"]


class Hasty(SystemClock):
    """A clock whose every look is a minute later."""

    at_ms = 0.0

    def monotonic_ms(self) -> float:
        self.at_ms += SILENCE_MS_MAX * 2
        return self.at_ms


async def offsets(log: Log, start: int, end: int, clock: Clock | None = None) -> list[list[int]]:
    bounds = {INBOX.partition: Bounds(start, end)}
    async with aclosing(read_batches(log, INBOX.topic, bounds, clock)) as batches:
        return [[record.offset for record in records] async for records in batches]


async def test_exactly_the_span_is_read_in_small_batches(log: Log) -> None:
    await append(log, *(request(f"r{n}") for n in range(RECORDS_MAX + 10)))
    found = await offsets(log, 3, RECORDS_MAX + 7)
    assert [offset for batch in found for offset in batch] == list(range(3, RECORDS_MAX + 7))
    assert max(map(len, found)) <= RECORDS_MAX


async def test_each_partition_is_read_within_its_own_bounds(log: Log) -> None:
    await log.create_topics([TopicSpec("t", 3)])
    await log.append([NewRecord("t", None, b"", (), n % 3) for n in range(30)])
    bounds = {0: Bounds(2, 4), 1: Bounds(0, 10), 2: Bounds(5, 5)}
    found = [(record.partition, record.offset) async for record in read_records(log, "t", bounds)]
    assert sorted(found) == [(0, 2), (0, 3), *((1, n) for n in range(10))]


async def test_an_empty_span_reads_nothing(log: Log) -> None:
    assert await offsets(log, 5, 5) == []
    assert await offsets(log, 5, 4) == []


async def test_a_log_that_stays_silent_before_the_end_is_unavailable(log: Log) -> None:
    await append(log, request("r1"))
    with pytest.raises(LogUnavailable, match="records up to offset 9, got nothing after 1 for 30000 ms"):
        await offsets(log, 0, 9, Hasty())


async def test_one_record_is_found_by_its_offset(log: Log) -> None:
    await append(log, request("r1"), request("r2"))
    found = await record_at(log, INBOX.topic, INBOX.partition, 1)
    assert found is not None
    assert found.offset == 1
    for topic, partition, offset in ((INBOX.topic, INBOX.partition, 2), (INBOX.topic, 999, 0), ("nowhere", 0, 0)):
        assert await record_at(log, topic, partition, offset) is None


async def test_records_are_found_by_their_offsets_as_far_as_they_are_there(log: Log) -> None:
    await append(log, *(request(f"r{n}") for n in range(RECORDS_MAX + 10)))
    for wanted, there in (
        ({7, 3, RECORDS_MAX + 2, RECORDS_MAX + 50}, [3, 7, RECORDS_MAX + 2]),
        ({9_999}, []),
        ((), []),
    ):
        async with aclosing(records_at(log, INBOX.topic, INBOX.partition, wanted)) as records:
            assert [record.offset async for record in records] == there


async def test_bounds_between_two_times_hold_what_was_stamped_from_the_first_on_and_before_the_second(log: Log) -> None:
    await append(log, *(request(f"r{n}") for n in range(3)))
    bounds = {INBOX.partition: Bounds(0, 3)}
    async with aclosing(read_records(log, INBOX.topic, bounds)) as records:
        stamps = [record.timestamp async for record in records]
    for since_ms in (None, 0, stamps[0], stamps[2], stamps[2] + 1):
        for until_ms in (None, 0, stamps[0], stamps[2], stamps[2] + 1):
            inside = [
                n
                for n, at_ms in enumerate(stamps)
                if at_ms >= (since_ms or 0) and (until_ms is None or at_ms < until_ms)
            ]
            found = (await bounds_between(log, INBOX.topic, since_ms, until_ms))[INBOX.partition]
            assert list(range(*found)) == inside
