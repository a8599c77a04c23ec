"""The format of records in the file: one row holds a batch of one partition, column by column.

A row costs SQLite about 5 µs however small it is, so records that were appended together share one. A column is usually
its items joined by zero bytes, which one C call writes and one reads. Items that contain a zero byte or are None are
written with their lengths instead. Header names repeat from record to record: each distinct list of names (a *shape*)
is written once in each batch.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, repeat
from typing import Any, NamedTuple

from mesh.core.protocol.record import BATCH_BYTES, Headers, NewRecord, PackedHeaders, Record, StoredRecord

RECORDS_MAX = 256
"""Greatest number of records in a batch: the number of a shape within its batch then fits one byte."""

_CACHED_MAX = 4_096
_FRAME_BYTES = 32
"""Upper bound of what Kafka adds to a record: its length, attributes, time, offset, number of headers."""
_JOINED, _MEASURED = 0, 1
_new_tuple: Callable[..., StoredRecord] = tuple.__new__  # twice as fast as `StoredRecord._make`
_shape_bytes: dict[tuple[str, ...], bytes] = {(): b""}
_shape_names: dict[bytes, tuple[str, ...]] = {b"": ()}


class StoredBatch(NamedTuple):
    """The columns of up to RECORDS_MAX records."""

    records: int
    keys: bytes
    bodies: bytes
    shapes: bytes
    headers: bytes

    @property
    def size_bytes(self) -> int:
        """Approximate size of all records together, never too low."""
        return len(self.keys) + len(self.bodies) + len(self.shapes) + len(self.headers)

    @property
    def record_bytes_bound(self) -> int:
        """Upper bound of the size of a record, as `core.protocol.record.record_bytes` counts.

        Kafka has the length of a field in place of the one-byte separator here. It takes one byte more for each 64
        bytes at most.
        """
        return self.size_bytes + self.size_bytes // 64 + BATCH_BYTES + _FRAME_BYTES


def encode(records: Sequence[NewRecord]) -> StoredBatch:
    """Pack 1 to RECORDS_MAX records. Raises TypeError, ValueError or AttributeError for an invalid record."""
    values: list[bytes] = [b""]
    table: dict[tuple[str, ...], int] = {}
    indexes: list[int] = []
    names: tuple[str, ...]
    for record in records:
        headers = record.headers
        if type(headers) is PackedHeaders:
            names = headers.names
            values += headers.values
        elif len(headers) == 1:
            ((name, value),) = headers
            names = (name,)
            values.append(value)
        elif headers:
            names, own = zip(*headers, strict=True)
            values += own
        else:
            names = ()
        indexes.append(table.setdefault(names, len(table)))
    shapes = [_encode_shape(names) for names in table]
    if len(shapes) == 1:
        packed = b"\0" + shapes[0]
    else:
        lengths = struct.pack(f"<{len(shapes)}I", *map(len, shapes))
        packed = bytes((1, len(shapes) - 1)) + lengths + bytes(indexes) + b"".join(shapes)
    keys = encode_column([b"", *(r.key for r in records)])
    bodies = encode_column([b"", *(r.value for r in records)])
    return StoredBatch(len(records), keys, bodies, packed, encode_column(values))


def decode(topic: str, partition: int, offset: int, at_ms: int, batch: StoredBatch) -> list[Record]:
    """Unpack the records of a batch. `offset`: the offset of the first record."""
    values = decode_column(batch.headers)
    headers: Iterable[Any]
    if batch.shapes[0] == 0:
        names = _decode_shape(batch.shapes[1:])
        if len(names) == 1:
            headers = zip(zip(repeat(names[0]), values))  # tuples of one pair, made in C
        elif names:
            step = iter(values)
            headers = map(PackedHeaders, repeat(names), zip(*[step] * len(names), strict=True))
        else:
            headers = repeat(())
    else:
        headers = _decode_mixed(batch, values)
    rows = zip(
        repeat(topic),
        repeat(partition),
        range(offset, offset + batch.records),
        repeat(at_ms),
        decode_column(batch.keys),
        decode_column(batch.bodies),
        headers,
    )
    return list(map(_new_tuple, repeat(StoredRecord), rows))


def encode_column(items: Sequence[bytes | None]) -> bytes:
    """Join `items`. The first must be empty, so that no item and one empty item differ."""
    try:
        joined = b"\0".join(items)  # type: ignore[arg-type]  # None raises TypeError
    except TypeError:
        return _encode_measured(items[1:])
    if joined.count(0) == len(items) - 1:
        return joined
    return _encode_measured(items[1:])


def decode_column(column: bytes) -> list[bytes | None]:
    """Split a column into its items, without the first empty one."""
    if not column:
        return []
    if column[0] == _JOINED:
        items: list[bytes | None] = column.split(b"\0")  # type: ignore[assignment]
        del items[0]
        return items
    (count,) = struct.unpack_from("<I", column, 1)
    lengths = struct.unpack_from(f"<{count}i", column, 5)
    at = 5 + 4 * count
    ends = accumulate(max(length, 0) for length in lengths)
    return [
        None if length < 0 else column[at + end - length : at + end] for length, end in zip(lengths, ends, strict=True)
    ]


def _encode_measured(items: Sequence[bytes | None]) -> bytes:
    lengths = [-1 if item is None else len(item) for item in items]
    start = struct.pack(f"<BI{len(items)}i", _MEASURED, len(items), *lengths)
    return start + b"".join([item for item in items if item is not None])


def _encode_shape(names: tuple[str, ...]) -> bytes:
    shape = _shape_bytes.get(names)
    if shape is None:
        shape = encode_column([b"", *(name.encode() for name in names)])
        if len(_shape_bytes) >= _CACHED_MAX:
            _shape_bytes.clear()
        _shape_bytes[names] = shape
    return shape


def _decode_shape(shape: bytes) -> tuple[str, ...]:
    names = _shape_names.get(shape)
    if names is None:
        names = tuple(name.decode() for name in decode_column(shape) if name is not None)
        if len(_shape_names) >= _CACHED_MAX:
            _shape_names.clear()
        _shape_names[shape] = names
    return names


def _decode_mixed(batch: StoredBatch, values: list[bytes | None]) -> list[Headers]:
    """Return the headers of a batch whose records have different names."""
    packed = batch.shapes
    count = packed[1] + 1
    at = 2 + 4 * count
    indexes = packed[at : at + batch.records]
    at += batch.records
    shapes = []
    for length in struct.unpack_from(f"<{count}I", packed, 2):
        shapes.append(_decode_shape(packed[at : at + length]))
        at += length
    headers: list[Headers] = []
    start = 0
    for index in indexes:
        names = shapes[index]
        end = start + len(names)
        own: Any = values[start:end]  # None only in other columns
        headers.append(((names[0], own[0]),) if len(own) == 1 else PackedHeaders(names, own))
        start = end
    return headers
