"""Batches with header names that are no text, read without choking."""

import struct
from collections.abc import Sequence

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from hypothesis import given
from hypothesis import strategies as st

from mesh.adapters.kafka import undecodable

GZIP = 1
Header = tuple[bytes, bytes | None]


class Raw(str):
    """A header name given as bytes."""

    raw = b""

    def encode(self, *_: str) -> bytes:
        return self.raw


def raw(name: bytes) -> Raw:
    text = Raw()
    text.raw = name
    return text


def batch(records: Sequence[tuple[bytes | None, Sequence[Header]]], codec: int = 0, offset: int = 0) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, 0, 1 << 20)
    for n, (value, headers) in enumerate(records):
        builder.append(n, 1_000 + n, b"k", value, [(raw(name), text) for name, text in headers])
    data = builder.build()
    struct.pack_into(">q", data, 0, offset)
    return bytes(data)


def read(data: bytes) -> list[tuple[int, bytes | None, list[tuple[str, bytes | None]]]]:
    found, records = [], undecodable.LenientRecords(data)
    while records.has_next():
        one = records.next_batch()
        assert one.validate_crc()
        found += [(r.offset, r.value, list(r.headers)) for r in one]
    return found


def test_only_the_names_that_are_no_text_change() -> None:
    plain: list[tuple[bytes | None, list[Header]]] = [
        (b"a", [(b"x", b"1")]),
        (b"b", [(b"\xff\xfe", b"\xff"), ("é".encode(), None)]),
        (None, []),
    ]
    for codec in (0, GZIP):
        data = batch(plain, codec) + batch([(b"c", [(b"\x80y", b"")])], codec, offset=3) + batch(plain, codec, offset=4)
        assert read(data) == [
            (0, b"a", [("x", b"1")]),
            (1, b"b", [("\\xff\\xfe", b"\xff"), ("é", None)]),
            (2, None, []),
            (3, b"c", [("\\x80y", b"")]),
            (4, b"a", [("x", b"1")]),
            (5, b"b", [("\\xff\\xfe", b"\xff"), ("é", None)]),
            (6, None, []),
        ]


@given(st.lists(st.tuples(st.binary(max_size=9), st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=5))))))
def test_any_name_is_read_and_can_be_written_again(records: list[tuple[bytes, list[Header]]]) -> None:
    found = read(batch(records)) if records else []
    assert [(value, [text for _, text in headers]) for _, value, headers in found] == [
        (value, [text for _, text in headers]) for value, headers in records
    ]
    for _, _, headers in found:
        for name, _ in headers:
            name.encode()


def test_an_unfinished_batch_at_the_end_is_left_for_the_next_fetch() -> None:
    whole = batch([(b"a", [])])
    assert [value for _, value, _ in read(whole + batch([(b"b", [])], offset=1)[:-3])] == [b"a"]
    assert read(whole[:20]) == []


def test_the_library_uses_these_records_once_installed() -> None:
    undecodable.install()
    assert fetcher.MemoryRecords is undecodable.LenientRecords
