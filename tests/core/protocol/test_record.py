"""Records as plain values, and their coordinates."""

import pytest
from aiokafka.structs import ConsumerRecord

from mesh.core.protocol.record import (
    NewRecord,
    PackedHeaders,
    Record,
    StoredRecord,
    TopicPartition,
    coordinates,
    parse_coordinates,
)

STORED = StoredRecord("orders.placed", 3, 17, 1_700_000_000_000, b"k", b"{}", [("a", b"b")])


def test_the_coordinates_name_topic_partition_and_offset() -> None:
    assert coordinates(STORED) == "orders.placed:3:17"


@pytest.mark.parametrize("text", ["", "t", "t:1", "t:1:", "t::2", "t:-1:2", "t:a:2", "t:1:2:x"])
def test_a_text_without_partition_and_offset_is_no_position(text: str) -> None:
    assert parse_coordinates(text) is None


def test_coordinates_are_read_as_they_were_written() -> None:
    assert parse_coordinates(coordinates(STORED)) == ("orders.placed", 3, 17)


def test_a_record_of_the_kafka_client_is_used_as_it_comes() -> None:
    record: Record = ConsumerRecord("t", 1, 2, 3, 0, b"k", b"v", None, 1, 1, (("h", b"x"),))
    assert coordinates(record) == "t:1:2"
    assert (record.timestamp, record.key, record.value, list(record.headers)) == (3, b"k", b"v", [("h", b"x")])


def test_a_partition_equals_any_tuple_of_topic_and_number() -> None:
    assert TopicPartition("t", 1) == ("t", 1)
    assert {TopicPartition("t", 1): "x"}[("t", 1)] == "x"  # type: ignore[index]


def test_a_new_record_needs_topic_key_and_value_only() -> None:
    assert NewRecord("t", None, b"v") == ("t", None, b"v", (), None)


def test_packed_headers_are_a_sequence_like_any_other() -> None:
    pairs = (("a", b"1"), ("b", b"2"), ("a", b"3"))
    packed = PackedHeaders(("a", "b", "a"), (b"1", b"2", b"3"))
    assert packed == pairs
    assert packed == list(pairs)
    assert packed != pairs[:2]
    assert packed != "abc"
    assert tuple(packed) == pairs
    assert packed[1] == ("b", b"2")
    assert packed[-1] == ("a", b"3")
    assert packed[1:] == pairs[1:]
    assert ("b", b"2") in packed
    assert dict(packed) == {"a": b"3", "b": b"2"}
    assert (len(packed), repr(packed), hash(packed)) == (3, repr(pairs), hash(pairs))
    with pytest.raises(IndexError):
        packed[3]
