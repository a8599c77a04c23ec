"""Reading: positions, wake-ups, and what is read ahead."""

import asyncio

import pytest

from mesh.adapters.ports import TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.adapters.sqlite.partitions.fetch import Fetcher
from mesh.core.errors import InvalidInput, LogUnavailable, NotFound
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.adapters.log_kit import append, numbered, partitions_of, read, values

PLACE = TopicPartition("t", 0)


@pytest.fixture
async def topic(log: SqliteLog) -> str:
    await log.create_topics([TopicSpec("t", 2)])
    return "t"


@pytest.mark.parametrize("records_max", [1, 7, 255, 256, 257, 1_000])
async def test_polls_of_any_size_cut_batches_of_any_size(log: SqliteLog, topic: str, records_max: int) -> None:
    at = 0
    for size in (1, 300, 2, 256, 5, 600, 1):
        await append(log, numbered(topic, range(at, at + size)))
        at += size
    reader = log.reader({PLACE: 0})
    seen: list[bytes | None] = []
    while len(seen) < at:
        records = await reader.poll(records_max=records_max, wait_ms=5_000)
        assert 0 < len(records) <= records_max
        assert reader.position(PLACE) == records[-1].offset + 1
        seen += values(records)
    assert seen == [b"%d" % number for number in range(at)]
    assert await reader.poll(records_max=10, wait_ms=0) == []
    await reader.close()


@pytest.mark.parametrize("offset", [0, 1, 255, 256, 299, 300, 301])
async def test_a_position_within_a_batch_begins_there(log: SqliteLog, topic: str, offset: int) -> None:
    await append(log, numbered(topic, range(300)))
    await append(log, numbered(topic, [300, 301]))
    reader = log.reader({PLACE: offset})
    assert (await read(reader, 1))[0].offset == offset
    await reader.close()


async def test_a_seek_drops_what_was_read_ahead(log: SqliteLog, topic: str) -> None:
    await append(log, numbered(topic, range(100)))
    reader = log.reader({PLACE: 0})
    await read(reader, 10)
    reader.seek(PLACE, 50)
    assert values(await read(reader, 2)) == [b"50", b"51"]
    await reader.close()


async def test_offsets_that_cannot_be_are_invalid_and_foreign_partitions_not_found(log: SqliteLog, topic: str) -> None:
    for offset in (-1, 1 << 40):
        with pytest.raises(InvalidInput, match=str(offset)):
            log.reader({PLACE: offset})
    reader = log.reader({PLACE: 0})
    with pytest.raises(InvalidInput, match="-5"):
        reader.seek(PLACE, -5)
    other = TopicPartition(topic, 1)
    with pytest.raises(NotFound, match="t:1"):
        reader.seek(other, 0)
    with pytest.raises(NotFound, match="t:1"):
        reader.position(other)
    for unknown in (TopicPartition("nosuch", 0), TopicPartition(topic, 2)):
        with pytest.raises(NotFound):
            log.reader({unknown: 0})
    await reader.close()


async def test_a_full_partition_does_not_starve_the_others(log: SqliteLog, topic: str) -> None:
    await append(log, numbered(topic, range(1_000), 0) + numbered(topic, range(10), 1))
    reader = log.reader(dict.fromkeys(partitions_of(topic, 2), 0))
    seen = [r.partition for _ in range(3) for r in await reader.poll(records_max=50, wait_ms=0)]
    assert set(seen) == {0, 1}
    await reader.close()


async def test_polling_a_full_log_leaves_the_loop_to_others(log: SqliteLog, topic: str) -> None:
    await append(log, numbered(topic, range(200)))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.ensure_future(tick())
    reader = log.reader({PLACE: 0})
    for _ in range(100):
        await reader.poll(records_max=1, wait_ms=0)
    assert ticks >= 90
    ticking.cancel()
    await reader.close()


async def test_only_partitions_that_were_written_to_are_looked_at(log: SqliteLog, topic: str) -> None:
    fetcher = Fetcher(log.file)
    for number, partition in enumerate(sorted(partitions_of(topic, 2)), start=1):
        fetcher.add(partition, number, 0, paused=False)
    assert fetcher.take(10) == {}
    await append(log, [NewRecord(topic, None, b"x", (), 1)])
    assert fetcher.wakeup.fired == {2}
    looked: list[str] = []
    log.file.read(lambda connection: connection.set_trace_callback(looked.append))
    assert len(fetcher.take(10)) == 1
    assert sum("FROM batches" in statement for statement in looked) == 1
    fetcher.close()


async def test_a_reader_of_a_closed_log_is_reported(log: SqliteLog, topic: str) -> None:
    reader = log.reader({PLACE: 0})
    waiting = asyncio.ensure_future(reader.poll(records_max=1, wait_ms=20_000))
    await asyncio.sleep(0.01)
    await log.close()
    with pytest.raises(LogUnavailable):
        await waiting
    with pytest.raises(LogUnavailable):
        await reader.poll(records_max=1, wait_ms=0)
    await reader.close()
