"""The format of records in the file: decoding returns what was encoded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.adapters.sqlite.partitions.batch import (
    RECORDS_MAX,
    decode,
    decode_column,
    encode,
    encode_column,
)
from mesh.core.protocol.record import NewRecord, PackedHeaders, StoredRecord, record_bytes

some_bytes = st.binary(max_size=40) | st.sampled_from([b"", b"\0", b"\0\0", b"\1a\0"])
names = st.text(max_size=8) | st.sampled_from(["ce_id", "ce_type", "", "\0"])
headers = st.lists(st.tuples(names, some_bytes), max_size=6)
records = st.builds(NewRecord, st.just("t"), st.none() | some_bytes, st.none() | some_bytes, headers)


@given(st.lists(records, min_size=1, max_size=20))
def test_any_records_come_back_as_they_were(given_records: list[NewRecord]) -> None:
    batch = encode(given_records)
    assert batch.records == len(given_records)
    found = decode("t", 3, 17, 99, batch)
    assert [(r.topic, r.partition, r.offset, r.timestamp) for r in found] == [
        ("t", 3, 17 + index, 99) for index in range(len(given_records))
    ]
    for record, expected in zip(found, given_records, strict=True):
        assert isinstance(record, StoredRecord)
        assert (record.key, record.value, list(record.headers)) == (
            expected.key,
            expected.value,
            list(expected.headers),
        )


@given(st.lists(st.none() | some_bytes))
def test_any_column_comes_back_as_it_was(items: list[bytes | None]) -> None:
    assert decode_column(encode_column([b"", *items])) == items


lengths = st.sampled_from([0, 1, 63, 64, 65, 8_191, 8_192, 20_000])
large_records = st.builds(
    lambda key, value, headers: NewRecord("t", b"k" * key, b"v" * value, [("n" * n, b"w" * w) for n, w in headers]),
    lengths,
    lengths,
    st.lists(st.tuples(lengths, lengths), max_size=9),
)


@given(st.lists(records | large_records, min_size=1, max_size=4))
def test_no_record_of_a_batch_is_larger_than_the_bound_of_the_batch(given_records: list[NewRecord]) -> None:
    assert encode(given_records).record_bytes_bound >= max(map(record_bytes, given_records))


def test_a_full_batch_of_different_shapes_comes_back() -> None:
    given_records = [NewRecord("t", None, b"v", ((f"h{index}", b"x"),)) for index in range(RECORDS_MAX)]
    found = decode("t", 0, 0, 0, encode(given_records))
    assert [list(r.headers) for r in found] == [list(r.headers) for r in given_records]


def test_more_shapes_than_are_remembered_come_back() -> None:
    for index in range(5_000):
        record = NewRecord("t", None, None, ((f"name{index}", b"x"),))
        assert decode("t", 0, 0, 0, encode([record]))[0].headers[0] == (f"name{index}", b"x")


@pytest.mark.parametrize(
    "record",
    [
        NewRecord("t", b"k", "text"),  # type: ignore[arg-type]
        NewRecord("t", 7, b"v"),  # type: ignore[arg-type]
        NewRecord("t", b"k", b"v", (("h", "text"),)),
        NewRecord("t", b"k", b"v", ((b"h", b"v"),)),  # type: ignore[arg-type]
        NewRecord("t", b"k", b"v", (("h",),)),  # type: ignore[arg-type]
        NewRecord("t", b"k", b"v", (("h\ud800", b"v"),)),
    ],
)
def test_what_is_no_record_is_refused(record: NewRecord) -> None:
    with pytest.raises((TypeError, ValueError, AttributeError)):
        encode([record])


def test_a_header_without_value_is_kept_as_kafka_keeps_it() -> None:
    record = NewRecord("t", b"k", b"v", (("h", None), ("i", b"")))
    assert list(decode("t", 0, 0, 0, encode([record]))[0].headers) == [("h", None), ("i", b"")]


@given(st.lists(headers, min_size=1, max_size=6))
def test_headers_lie_in_the_file_alike_whether_they_came_packed_or_as_pairs(
    lists: list[list[tuple[str, bytes]]],
) -> None:
    pairs = [NewRecord("t", b"k", b"v", own) for own in lists]
    packed = [
        r._replace(headers=PackedHeaders(tuple(n for n, _ in r.headers), [v for _, v in r.headers])) for r in pairs
    ]
    assert encode(packed) == encode(pairs)
