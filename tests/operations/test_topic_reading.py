"""Reading parts of topics, their last records, and what comes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.selection.record_filter import RecordFilter
from mesh.core.text_glob import glob_test
from mesh.operations import topic_reading
from mesh.operations.topic_reading import Found, TopicRange, follow, last_records, read_topics, spans_of
from tests.builders import topology

MESH = topology(a="ask -> answer")
ALL = RecordFilter()
EVERYTHING = TopicRange()
DEADLINE_S = 20.0


class StepClock(SystemClock):
    """A clock that goes on by one millisecond at each look."""

    at_ms = 1_000_000

    def now_ms(self) -> int:
        self.at_ms += 1
        return self.at_ms


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log.db", clock=StepClock())
    await log.start()
    await log.create_topics([TopicSpec(MESH.inbox, 3), TopicSpec("theirs", 2)])
    yield log
    await log.close()


async def fill(log: SqliteLog, *places: tuple[str, int], each: int = 1) -> None:
    """Append a record to each place, one after the other, so that their times rise. Keys count from 0 in a topic."""
    for number in range(each):
        for at, (topic, partition) in enumerate(places):
            key = f"k{number * len(places) + at}".encode()
            await log.append([NewRecord(topic, key, b"{}", (), partition)])


async def gathered(records: AsyncGenerator[Found], count: int = 1_000_000) -> list[str]:
    """The keys of records, at most `count`."""
    keys: list[str] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(records) as found:
        async for record, _ in found:
            keys.append((record.key or b"").decode())
            if len(keys) == count:
                break
    return keys


async def read(
    log: SqliteLog, topics: Sequence[str], part: TopicRange = EVERYTHING, run: str | None = None
) -> list[str]:
    return await gathered(read_topics(log, await spans_of(log, MESH, topics, part, run), ALL))


PLACES = ((MESH.inbox, 0), ("theirs", 1), (MESH.inbox, 2), ("theirs", 0), (MESH.inbox, 0))


async def test_records_of_several_partitions_come_in_the_order_of_their_times(log: SqliteLog) -> None:
    await fill(log, *PLACES, each=50)
    assert await read(log, [MESH.inbox, "theirs"]) == [f"k{n}" for n in range(250)]
    assert await read(log, ["theirs"]) == [f"k{n}" for n in range(250) if n % 5 in (1, 3)]


async def test_few_wait_for_earlier_ones(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_reading, "BUFFERED_MAX", 10)
    await fill(log, (MESH.inbox, 0), each=700)
    await fill(log, (MESH.inbox, 1), each=700)
    keys = await read(log, [MESH.inbox])
    assert sorted(keys) == sorted(f"k{n}" for n in range(700) for _ in "ab")
    once = await gathered(read_topics(log, await spans_of(log, MESH, [MESH.inbox], TopicRange(), None), ALL), 400)
    assert once == [f"k{n}" for n in range(400)]


async def test_offsets_choose_their_partitions_and_times_cut_all(log: SqliteLog) -> None:
    await fill(log, (MESH.inbox, 0), (MESH.inbox, 1), each=10)
    assert await read(log, [MESH.inbox], TopicRange(starts={1: 8})) == ["k17", "k19"]
    assert await read(log, [MESH.inbox], TopicRange(starts={0: 3}, ends={0: 5})) == ["k6", "k8"]
    assert await read(log, [MESH.inbox], TopicRange(ends={0: 1, 1: 1})) == ["k0", "k1"]
    spans = await spans_of(log, MESH, [MESH.inbox], TopicRange(), None)
    times = {}
    async with aclosing(read_topics(log, spans, ALL)) as found:
        async for record, _ in found:
            times[(record.key or b"").decode()] = record.timestamp
    assert await read(log, [MESH.inbox], TopicRange(since_ms=times["k7"], until_ms=times["k12"])) == [
        f"k{n}" for n in range(7, 12)
    ]


async def test_an_unknown_topic_or_partition_is_refused(log: SqliteLog) -> None:
    with pytest.raises(NotFound):
        await read(log, ["none"])
    with pytest.raises(InvalidInput, match="a partition from 0 to 1"):
        await read(log, ["theirs"], TopicRange(starts={2: 0}))


async def test_of_a_run_only_its_home_partition_is_read(log: SqliteLog) -> None:
    spans = await spans_of(log, MESH, [MESH.inbox, "theirs"], TopicRange(), "run-7")
    assert list(spans[MESH.inbox]) == [partition_of(b"run-7", 3)]
    assert list(spans["theirs"]) == [0, 1]


@pytest.mark.parametrize("count", [1, 7, 40, 1_000])
async def test_the_last_records_are_the_latest_of_all_partitions(
    log: SqliteLog, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_reading, "WINDOW_RECORDS", 4)
    await fill(log, ("theirs", 0), each=30)
    await fill(log, *PLACES, each=6)
    spans = await spans_of(log, MESH, [MESH.inbox, "theirs"], TopicRange(), None)
    whole = await gathered(read_topics(log, spans, ALL))
    found = await last_records(log, spans, ALL, count)
    assert [(record.key or b"").decode() for record, _ in found] == whole[-count:]


async def test_the_last_records_of_a_choice_are_looked_for_further_back(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_reading, "WINDOW_RECORDS", 4)
    await fill(log, ("theirs", 0), ("theirs", 1), each=50)
    spans = await spans_of(log, MESH, ["theirs"], TopicRange(), None)
    found = await last_records(log, spans, RecordFilter(key=glob_test("k1?")), 3)
    assert [record.key for record, _ in found] == [b"k17", b"k18", b"k19"]
    assert await last_records(log, spans, RecordFilter(key=glob_test("x")), 3) == []


async def test_new_records_are_followed(log: SqliteLog) -> None:
    await fill(log, ("theirs", 0))
    coming = asyncio.create_task(
        gathered(follow(log, {TopicPartition("theirs", 0): 1}, RecordFilter(key=glob_test("k?"))), 2)
    )
    await fill(log, ("theirs", 0), each=2)
    assert await coming == ["k0", "k1"]
