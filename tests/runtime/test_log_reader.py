"""Reading from one offset to another."""

from contextlib import aclosing

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Clock, Log
from mesh.core.errors import LogUnavailable
from mesh.runtime.log_reader import RECORDS_MAX, SILENCE_MS_MAX, read_span
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
    async with aclosing(read_span(log, clock or SystemClock(), INBOX, start, end)) as span:
        return [[record.offset for record in records] async for records in span]


async def test_exactly_the_span_is_read_in_small_lots(log: Log) -> None:
    await append(log, *(request(f"r{n}") for n in range(RECORDS_MAX + 10)))
    found = await offsets(log, 3, RECORDS_MAX + 7)
    assert [offset for lot in found for offset in lot] == list(range(3, RECORDS_MAX + 7))
    assert max(map(len, found)) <= RECORDS_MAX


async def test_an_empty_span_reads_nothing(log: Log) -> None:
    assert await offsets(log, 5, 5) == []
    assert await offsets(log, 5, 4) == []


async def test_a_log_that_stays_silent_before_the_end_is_unavailable(log: Log) -> None:
    await append(log, request("r1"))
    with pytest.raises(LogUnavailable, match="records up to offset 9, got nothing after 1 for 30000 ms"):
        await offsets(log, 0, 9, Hasty())
