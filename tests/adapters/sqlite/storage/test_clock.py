"""The clock of a file: one time for all who share it, whatever their wall clocks say, never set back."""

from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import TopicSpec
from mesh.adapters.sqlite import SqliteFile, SqliteLog
from mesh.adapters.sqlite.storage import clock as file_clock
from mesh.adapters.sqlite.storage.clock import FileClock
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.adapters.log_kit import append, read

HOUR_MS = 3_600_000


class Machine(SystemClock):
    """A machine whose wall clock is off, and may be set."""

    def __init__(self, ahead_ms: int = 0) -> None:
        self.ahead_ms = ahead_ms

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


async def opened(path: Path, machine: Machine) -> SqliteLog:
    file = SqliteFile(path)
    file.clock = FileClock(machine)
    log = SqliteLog(file)
    await log.start()
    return log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mesh.db"


async def stamped(log: SqliteLog) -> int:
    """The time of a record that is appended now."""
    await log.create_topics([TopicSpec("t", 1)])
    await append(log, [NewRecord("t", b"k", b"v", (), 0)])
    end = (await log.bounds("t"))[0].end
    (record,) = await read(log.reader({TopicPartition("t", 0): end - 1}), 1)
    return record.timestamp


def near(at_ms: int, other_ms: int) -> bool:
    return abs(at_ms - other_ms) < 10_000


@pytest.mark.parametrize("step_ms", [-HOUR_MS, HOUR_MS])
async def test_it_does_not_follow_a_wall_clock_that_is_set_while_the_file_is_open(path: Path, step_ms: int) -> None:
    machine = Machine()
    log = await opened(path, machine)
    before_ms = await stamped(log)
    machine.ahead_ms = step_ms
    assert 0 <= await stamped(log) - before_ms < 10_000
    assert near(log.now_ms(), before_ms)
    await log.close()


async def test_time_goes_on_after_the_wall_clock_was_set_back(path: Path) -> None:
    machine = Machine()
    log = await opened(path, machine)
    machine.ahead_ms = -HOUR_MS
    first_ms = await stamped(log)
    begun_ms = machine.uptime_ms()
    while machine.uptime_ms() - begun_ms < 20:
        pass
    assert await stamped(log) >= first_ms + 20
    await log.close()


@pytest.mark.parametrize("ahead_ms", [-HOUR_MS, HOUR_MS])
async def test_a_later_process_takes_the_time_of_those_that_have_the_file_open(path: Path, ahead_ms: int) -> None:
    first = await opened(path, Machine())
    other = await opened(path, Machine(ahead_ms))
    assert near(first.now_ms(), other.now_ms())
    assert near(await stamped(first), await stamped(other))
    await first.close()
    await other.close()


async def test_a_file_that_no_process_has_open_is_set_forward_to_the_wall_clock_and_never_back(path: Path) -> None:
    log = await opened(path, Machine())
    before_ms = await stamped(log)
    await log.close()
    log = await opened(path, Machine(HOUR_MS))
    assert near(await stamped(log), before_ms + HOUR_MS)
    await log.close()
    log = await opened(path, Machine())
    assert near(await stamped(log), before_ms + HOUR_MS), "a record may not be older than one before it"
    await log.close()


async def test_after_a_boot_the_uptime_counts_from_zero(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await opened(path, Machine(-HOUR_MS))
    before_ms = await stamped(log)
    other = await opened(path, Machine(-HOUR_MS))
    await log.close()
    monkeypatch.setattr(file_clock, "_boot", lambda: "another life")
    log = await opened(path, Machine())
    assert near(await stamped(log), before_ms + HOUR_MS), "the wall clock of now"
    await log.close()
    await other.close()
