"""Records on their way: packed in order up to the limits, and each with one verdict."""

import asyncio
import functools
from typing import Any

from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given
from hypothesis import strategies as st

from mesh.adapters.kafka.append_queue import BATCH_BYTES_MIN, AppendCall, PartitionQueue, QueuedRecord, fill
from mesh.adapters.ports import Appended, Refused
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord, PackedHeaders, record_bytes

LIMIT = 10_000
empty = functools.partial(BatchBuilder, LIMIT, 0)


def lane_of(call: AppendCall, records: list[NewRecord], bytes_max: int = LIMIT) -> PartitionQueue:
    lane = PartitionQueue("t", 0, bytes_max)
    lane.waiting.extend(QueuedRecord(record, call, n) for n, record in enumerate(records))
    return lane


def value(size: int) -> NewRecord:
    return NewRecord("t", b"k", b"x" * size)


async def test_what_waits_travels_together_in_order() -> None:
    call = AppendCall(5)
    lane = lane_of(call, [value(n) for n in range(5)])
    batch = lane.pack(empty, LIMIT)
    assert batch is not None
    assert [entry.at for entry in batch.entries] == [0, 1, 2, 3, 4]
    assert batch.builder.record_count() == 5
    assert not lane.waiting
    assert lane.pack(empty, LIMIT) is None


async def test_what_does_not_fit_waits_for_the_next_batch() -> None:
    lane = lane_of(AppendCall(5), [value(3_000) for _ in range(5)])
    sizes = []
    while batch := lane.pack(empty, LIMIT):
        sizes.append(batch.builder.record_count())
        assert batch.builder.size() <= LIMIT
    assert sizes == [3, 2]


async def test_a_record_over_the_limit_is_refused_wherever_it_stands() -> None:
    call = AppendCall(4)
    lane = lane_of(call, [value(LIMIT), value(10), value(LIMIT), value(10)])
    places = []
    while batch := lane.pack(empty, LIMIT):
        for entry in batch.entries:
            places.append(entry.at)
            entry.call.complete(entry.at, Appended(0, entry.at))
    assert places == [1, 3]
    verdicts = await call.done
    for refused in verdicts[::2]:
        assert isinstance(refused, Refused)
        assert refused.code == "too_large"
        assert str(LIMIT) in refused.message


async def test_a_record_just_below_the_limit_is_packed() -> None:
    lane = lane_of(AppendCall(1), [value(LIMIT - 100)])
    batch = lane.pack(empty, LIMIT)
    assert batch is not None
    assert LIMIT - 100 < batch.builder.size() <= LIMIT


async def test_what_is_no_record_spoils_nothing() -> None:
    call = AppendCall(3)
    strange = NewRecord("t", b"k", b"v", (("ok", b"v"), ("bad", 7)))
    lane = lane_of(call, [value(1), strange, value(1)])
    batch = lane.pack(empty, LIMIT)
    assert batch is not None
    assert [entry.at for entry in batch.entries] == [0, 2]
    for entry in batch.entries:
        call.complete(entry.at, Appended(0, 0))
    refused = (await call.done)[1]
    assert isinstance(refused, Refused)
    assert refused.code == "invalid"


async def test_headers_are_sent_alike_whatever_sequence_they_are() -> None:
    pairs = [("a", b"1"), ("b", b"")]
    for headers in (pairs, tuple(pairs), PackedHeaders(("a", "b"), (b"1", b""))):
        builder = empty()
        assert fill(builder, NewRecord("t", b"k", b"v", headers)) is None
        (sent,) = MemoryRecords(bytes(builder._build())).next_batch()
        assert (sent.key, sent.value, sent.headers) == (b"k", b"v", pairs)


async def test_a_lane_whose_batches_are_too_large_packs_smaller_ones() -> None:
    lane = lane_of(AppendCall(400), [value(500) for _ in range(400)], bytes_max=65_536)
    large = functools.partial(BatchBuilder, 1_000_000, 0)
    sizes = []
    while batch := lane.pack(large, 1_000_000):
        sizes.append(batch.builder.size())
        lane.reduce_batches()
    assert sizes == sorted(sizes, reverse=True)
    assert 32_768 > sizes[2] >= BATCH_BYTES_MIN
    assert lane.bytes_max == BATCH_BYTES_MIN


async def test_a_call_ends_with_its_last_verdict() -> None:
    call = AppendCall(2)
    call.complete(1, Appended(0, 1))
    assert not call.done.done()
    call.complete(0, Appended(0, 0))
    assert await call.done == [Appended(0, 0), Appended(0, 1)]
    call.fail(LogUnavailable("too late to matter"))
    assert await call.done == [Appended(0, 0), Appended(0, 1)]


async def test_a_call_that_failed_stays_failed_and_each_caller_has_its_own_error() -> None:
    error = LogUnavailable("gone", where="kafka://x")
    calls = [AppendCall(1), AppendCall(1)]
    for call in calls:
        call.fail(error)
        call.complete(0, Appended(0, 0))
    raised = await asyncio.gather(*(call.done for call in calls), return_exceptions=True)
    assert [str(e) for e in raised] == [str(error)] * 2
    assert len({id(e) for e in (*raised, error)}) == 3


lengths = st.sampled_from([0, 1, 62, 63, 64, 65, 8_190, 8_191, 8_192, 1_048_575, 1_048_576])
fields = st.none() | st.binary(max_size=80) | lengths.map(bytes)
names = st.text(max_size=80) | lengths.map(lambda n: "n" * n)
some_headers = st.lists(st.tuples(names, fields), max_size=5) | st.integers(62, 66).map(lambda n: [("h", b"v")] * n)


@given(fields, fields, some_headers, st.booleans())
def test_a_record_has_the_size_that_the_core_counts(
    key: bytes | None, value: bytes | None, headers: list[Any], packed: bool
) -> None:
    given_headers: Any = PackedHeaders(tuple(n for n, _ in headers), [v for _, v in headers]) if packed else headers
    record = NewRecord("t", key, value, given_headers)
    builder = BatchBuilder(1 << 30, 0)
    assert fill(builder, record) is None
    assert builder.size() == record_bytes(record)
