"""Windows counted from a real log: the same as those of its records in memory, and as they end."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.metrics.windows import BASE_MS, GRACE_MS, PartitionWindows, Scoped, add_window
from mesh.core.protocol.record import NewRecord
from mesh.operations.window_reading import WindowReader
from tests.core.metrics.scenario import BEGIN_MS, MESH, scenario


class SetClock(SystemClock):
    """A clock whose wall time and uptime the test sets."""

    at_ms = BEGIN_MS

    def now_ms(self) -> int:
        return self.at_ms

    def uptime_ms(self) -> float:
        return float(self.at_ms)


CLOCK = SetClock()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    CLOCK.at_ms = BEGIN_MS
    log = SqliteLog(tmp_path / "mesh.db", clock=CLOCK)
    await log.start()
    await log.create_topics(topic_specs(MESH))
    yield log
    await log.close()


async def play(log: SqliteLog, from_ms: int = 0, until_ms: int = 60_000) -> None:
    """Append the records of the scenario at their times."""
    records = sorted((r for some in scenario().values() for r in some), key=lambda r: r.timestamp)
    for record in records:
        if from_ms <= record.timestamp - BEGIN_MS < until_ms:
            CLOCK.at_ms = record.timestamp
            await log.append([NewRecord(record.topic, record.key, record.value, record.headers)])


def expected() -> dict[int, Scoped]:
    base: dict[int, Scoped] = {}
    for place, records in scenario().items():
        part = PartitionWindows(MESH, place)
        part.take(records)
        for start, scopes in part.windows.items():
            add_window(base, start, scopes)
    return base


async def test_the_log_gives_the_windows_of_its_records(log: SqliteLog) -> None:
    await play(log)
    reader = WindowReader(log, MESH, 0)
    await reader.catch_up()
    assert reader.windows() == expected()


async def test_a_later_start_lacks_nothing_of_the_windows_that_it_has(log: SqliteLog) -> None:
    await play(log)
    reader = WindowReader(log, MESH, BEGIN_MS + BASE_MS + 5)
    await reader.catch_up()
    assert reader.windows() == {BEGIN_MS + BASE_MS: expected()[BEGIN_MS + BASE_MS]}


async def test_windows_come_as_they_end(log: SqliteLog) -> None:
    await play(log, until_ms=2_000)
    reader = WindowReader(log, MESH, BEGIN_MS)
    await reader.catch_up()
    async with aclosing(reader.follow()) as coming:
        await play(log, from_ms=2_000)
        CLOCK.at_ms = BEGIN_MS + 2 * BASE_MS + GRACE_MS
        first, second = await anext(coming), await anext(coming)
    assert dict((first, second)) == expected()
