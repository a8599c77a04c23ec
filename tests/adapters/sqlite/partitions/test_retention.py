"""Removal of what is too old."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.core.protocol.record import TopicPartition
from tests.adapters.log_kit import append, numbered, read, until, values

PLACE = TopicPartition("t", 0)
DAY_MS = 86_400_000


class HandClock(SystemClock):
    """Wall time that stands still until it is set."""

    at_ms = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.at_ms


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def log(path: Path, clock: HandClock) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(path, clock=clock, retention_check_ms=20)
    await log.start()
    yield log
    await log.close()


async def make(log: SqliteLog, retention_ms: int) -> None:
    await log.create_topics([TopicSpec("t", 2, {"retention.ms": str(retention_ms)})])


async def test_old_records_go_and_the_others_stay(path: Path, clock: HandClock) -> None:
    log = SqliteLog(path, clock=clock)
    await log.start()
    await make(log, DAY_MS)
    await append(log, numbered("t", range(700)))
    clock.at_ms += DAY_MS // 2
    await append(log, numbered("t", range(700, 710)))
    assert await log.sweep_retention() == 0
    clock.at_ms += DAY_MS // 2 + 1
    assert await log.sweep_retention() == 700
    assert await log.sweep_retention() == 0
    assert await log.bounds("t") == {0: Bounds(700, 710), 1: Bounds(0, 0)}
    assert await log.offsets_at("t", 0) == {0: 700, 1: 0}
    assert values(await read(log.reader({PLACE: 0}), 10)) == [b"%d" % number for number in range(700, 710)]
    await log.close()


async def test_a_sweep_takes_many_small_batches(path: Path, clock: HandClock) -> None:
    log = SqliteLog(path, clock=clock)
    await log.start()
    await make(log, 1_000)
    for number in range(250):
        await append(log, numbered("t", [number], number % 2))
    clock.at_ms += 1_001
    assert await log.sweep_retention() == 250
    await log.close()


async def test_it_happens_by_itself_and_a_reader_goes_on_from_what_is_left(log: SqliteLog, clock: HandClock) -> None:
    await make(log, DAY_MS)
    await append(log, numbered("t", range(10)))
    reader, slow = log.reader({PLACE: 0}), log.reader({PLACE: 0})
    await read(reader, 10)
    await read(slow, 1)
    slow.seek(PLACE, 3)
    clock.at_ms += DAY_MS + 1
    starts: list[int] = []

    async def look() -> None:
        starts.append((await log.bounds("t"))[0].start)

    await look()
    while starts[-1] < 10:
        await slow.poll(records_max=0, wait_ms=20)
        await look()
    assert await slow.poll(records_max=10, wait_ms=0) == []
    assert slow.position(PLACE) == 10
    # Offsets do not begin anew, and times do not fall, though nothing is left.
    clock.at_ms -= DAY_MS
    (verdict,) = await append(log, numbered("t", [10]))
    assert verdict.offset == 10
    for one in (reader, slow):
        (record,) = await read(one, 1)
        assert record.offset == 10
        assert record.timestamp >= 1_700_000_000_000
        await one.close()


async def test_times_never_fall_when_the_clock_does(log: SqliteLog, clock: HandClock) -> None:
    await make(log, -1)
    await append(log, numbered("t", [0]))
    clock.at_ms -= 5_000
    await append(log, numbered("t", [1]))
    clock.at_ms += 5_001
    await append(log, numbered("t", [2]))
    times = [record.timestamp for record in await read(log.reader({PLACE: 0}), 3)]
    assert times == [1_700_000_000_000, 1_700_000_000_000, 1_700_000_000_001]


async def test_records_with_unlimited_retention_are_kept(path: Path, clock: HandClock) -> None:
    log = SqliteLog(path, clock=clock)
    await log.start()
    await make(log, -1)
    await log.create_topics([TopicSpec("u", 1)])
    await append(log, numbered("t", [1]) + numbered("u", [1]))
    clock.at_ms += 10_000 * DAY_MS
    assert await log.sweep_retention() == 0
    await log.close()


async def test_a_member_behind_the_start_goes_on_from_it(path: Path, clock: HandClock) -> None:
    from tests.adapters.log_kit import Recorder, take

    log = SqliteLog(path, clock=clock)
    await log.start()
    await make(log, DAY_MS)
    await append(log, numbered("t", range(5)))
    clock.at_ms += DAY_MS + 1
    await append(log, numbered("t", range(5, 8)))
    assert await log.sweep_retention() == 5
    listener = Recorder()
    member = await log.join("g", ["t"], listener)
    await until(lambda: len(listener.held) == 2, "assignment")
    assert member.position(PLACE) == 5
    member.seek(PLACE, 2)
    member.resume(PLACE)
    assert values(await take(member, 3)) == [b"5", b"6", b"7"]
    await log.close()


async def test_the_file_shrinks_when_much_of_it_is_free(path: Path, clock: HandClock) -> None:
    log = SqliteLog(path, clock=clock)
    await log.start()
    await make(log, 1_000)
    for _ in range(40):
        await append(log, [record._replace(value=b"x" * 50_000) for record in numbered("t", range(10))])
    clock.at_ms += 1_001
    await log.sweep_retention()
    await log.close()
    assert os.stat(path).st_size < 8_000_000, "20 MB were written"


async def test_a_topic_that_exists_takes_the_retention_of_its_declaration(path: Path, clock: HandClock) -> None:
    log = SqliteLog(path, clock=clock)
    await log.start()
    await log.create_topics([TopicSpec("t", 2)])
    await append(log, numbered("t", range(10)))
    clock.at_ms += DAY_MS
    assert await log.sweep_retention() == 0
    await make(log, 1_000)
    assert await log.sweep_retention() == 10
    await log.close()
