"""Compressed batches are unpacked into bounded memory; one record stands for a batch that is too large, or broken."""

import struct
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aiokafka import codec
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from mesh.adapters.kafka.undecodable import POLL_BYTES_MAX, BoundedResult, LenientRecords
from mesh.adapters.kafka.unpacked import UNPACKED_BYTES_MAX
from mesh.core.ingress.admission import admit
from mesh.core.ingress.request_formats import Rejection
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.record import StoredRecord, UnreadValue
from tests.builders import topology

MIB = 1_048_576
CODECS = {"gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
MESH = topology(check="ask -> checked")
Record = tuple[bytes | None, Sequence[tuple[str, bytes]]]


def batch(
    records: Sequence[Record], kind: int, offset: int = 0, *, body: Callable[[bytes], bytes] | None = None
) -> bytes:
    """A compressed batch. `body` changes what lies behind the header of the batch; the checksum is made anew."""
    builder = _DefaultRecordBatchBuilderPy(2, 0 if body else kind, 0, -1, -1, 0, 1 << 40)
    for n, (value, headers) in enumerate(records):
        builder.append(n, 1_000 + n, b"k", value, list(headers))
    data = bytearray(builder.build())
    if body is not None:
        data[61:] = body(bytes(data[61:]))
        data[22] |= kind
        struct.pack_into(">i", data, 8, len(data) - 12)
        struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    struct.pack_into(">q", data, 0, offset)
    return bytes(data)


def fetched(*batches: bytes, at: int = 0) -> PartitionRecords:
    tp = TopicPartition("in.ask", 0)
    return PartitionRecords(tp, LenientRecords(b"".join(batches)), [], at, None, None, True, 1)


def good(n: int) -> list[Record]:
    return [(b'{"id":"%d"}' % i, [("h", b"v")]) for i in range(n)]


@pytest.mark.parametrize("kind", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("size", [10, MIB, 3 * MIB])
def test_batches_of_any_compression_are_read_as_before(kind: int, size: int) -> None:
    records = [*good(3), (b"x" * size, []), (None, [("h", b"")])]
    found = list(fetched(batch(records, kind, 7), batch(good(1), 0, 12)))
    assert [(r.offset, r.value, list(r.headers)) for r in found] == [
        *((7 + n, value, list(headers)) for n, (value, headers) in enumerate(records)),
        (12, b'{"id":"0"}', [("h", b"v")]),
    ]


@pytest.mark.parametrize("raw", [False, True])
def test_snappy_is_read_in_blocks_and_as_one(raw: bool) -> None:
    records = [(b"x" * 100_000, [("h", b"v")])]
    packed = batch(records, 2, body=lambda data: codec.snappy_encode(data, xerial_compatible=not raw))
    assert [record.value for record in fetched(packed)] == [b"x" * 100_000]


@pytest.mark.parametrize("kind", CODECS.values(), ids=CODECS)
def test_a_batch_over_the_limit_is_one_record_and_costs_bounded_memory(kind: int) -> None:
    bomb = batch([(b"\0" * (UNPACKED_BYTES_MAX + MIB), [])], kind, 5)
    tracemalloc.start()
    try:
        first, second = fetched(bomb, batch(good(1), 0, 6), at=5)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < UNPACKED_BYTES_MAX + 4 * MIB
    assert (first.offset, first.key, first.value, first.headers, first.timestamp) == (5, None, b"", (), 1_000)
    assert isinstance(first.value, UnreadValue)
    assert (first.value.code, second.offset) == ("too_large", 6)


def test_a_batch_of_many_records_over_the_limit_is_one_record_at_its_last_offset() -> None:
    bomb = batch([(b"\0" * MIB, [])] * 20, 4, 5)
    (first,) = fetched(bomb, at=9)
    assert first.offset == 24
    assert "offsets 5 to 24" in first.value.message


def lie(_: bytes) -> bytes:
    """A block of raw snappy that says it has 4 GB."""
    return b"\xff\xff\xff\xff\x0f" + b"\0" * 40


CUT: dict[str, tuple[int, Callable[[bytes], bytes], str]] = {
    "gzip": (1, lambda data: codec.gzip_encode(data)[:-9], "unparseable"),
    "snappy": (2, lambda data: bytes(codec.snappy_encode(data, xerial_compatible=False))[:-9], "unparseable"),
    "snappy in blocks": (2, lambda data: codec.snappy_encode(data)[:-9], "unparseable"),
    "snappy in blocks, cut in a length": (2, lambda data: codec.snappy_encode(data) + b"\0\0", "unparseable"),
    "snappy that lies": (2, lie, "too_large"),
    "lz4": (3, lambda data: codec.lz4_encode(data)[:-9], "unparseable"),
    "zstd": (4, lambda data: codec.zstd_encode(data)[:-9], "unparseable"),
    "no compression that is known": (5, lambda data: data, "unparseable"),
}


@pytest.mark.parametrize(("kind", "body", "code"), CUT.values(), ids=CUT)
def test_a_batch_that_cannot_be_unpacked_is_one_record(kind: int, body: Callable[[bytes], bytes], code: str) -> None:
    first, second = fetched(batch(good(50), kind, body=body), batch(good(1), 0, 50))
    assert isinstance(first.value, UnreadValue)
    assert (first.offset, first.value.code, second.offset) == (49, code, 50)


def test_a_frame_of_zstd_that_wants_a_huge_window_costs_no_memory() -> None:
    """Its header claims 64 GB of content."""
    frame = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 36) + b"\x01\x00\x00"
    first, _ = fetched(batch(good(1), 4, body=lambda _: frame), batch(good(1), 0, 1))
    assert isinstance(first.value, UnreadValue)


def test_what_is_not_read_is_a_dead_letter_on_every_topic() -> None:
    record = StoredRecord("in.ask", 0, 5, 0, None, UnreadValue("too_large", "too much"), ())
    assert admit(record, MESH) == Rejection("too_large", "too much")
    assert read_event(record) == Unreadable("too_large", "too much")


# ---------------------------------------------------------------------------------------------------------------- lots


class Assignment:
    """As much of the library's assignment as a result asks for: the partition is ours, and not paused."""

    active, paused = True, False

    def __init__(self) -> None:
        self.position = 0

    def state_value(self, _: TopicPartition) -> "Assignment":
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


def lots(records: PartitionRecords, max_records: int) -> list[list[int]]:
    """Offsets as they are handed out, poll by poll."""
    result: Any = BoundedResult(
        TopicPartition("in.ask", 0), assignment=Assignment(), partition_records=records, backoff=0
    )
    found = []
    while result.has_more():
        found.append([record.offset for record in result.getall(max_records)])
    return found


def test_a_poll_begins_no_further_batch_once_it_has_enough_bytes() -> None:
    each = POLL_BYTES_MAX // 3
    batches = [batch([(b"\0" * each, [])] * 2, 4, 2 * n) for n in range(5)]
    found = lots(fetched(*batches), 500)
    assert [offset for lot in found for offset in lot] == list(range(10))
    assert max(map(len, found)) <= 4


def test_a_poll_has_at_most_as_many_records_as_were_asked_for() -> None:
    assert [len(lot) for lot in lots(fetched(batch(good(7), 4), batch(good(3), 0, 7)), 4)][:3] == [4, 4, 2]
