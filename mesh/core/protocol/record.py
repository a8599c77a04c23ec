"""Records on the log, as every adapter reads and appends them.

`Record` is a protocol with the attribute names of aiokafka's `ConsumerRecord`, so that records from Kafka need no copy.
Other adapters return `StoredRecord`.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol, Self, overload

Headers = Sequence[tuple[str, Any]]
"""Names and values. A value is bytes, or None: Kafka allows headers without a value."""
RECORD_BYTES_MAX: Final = 1_048_576
"""Default size limit of a log for one record."""
RECORD_BYTES_MIN: Final = 8_192
"""Lowest size limit: the last replacement of a refused record (`core.publishing.replacement_records`) fits into it."""
BATCH_BYTES: Final = 61
"""Bytes that Kafka puts before the records of a batch."""


class PackedHeaders(Sequence[tuple[str, bytes]]):
    """Headers as a tuple of names and a sequence of values. Pairs are made on access.

    Records share few different tuples of names. Making twelve pairs for each record would take longer than all other
    work of reading it from a file, and would keep the garbage collector busy.
    """

    __slots__ = ("names", "values")

    def __init__(self, names: tuple[str, ...], values: Sequence[bytes]) -> None:
        self.names = names
        self.values = values

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return zip(self.names, self.values)  # noqa: B905  # equal in length

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> tuple[str, bytes]: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[tuple[str, bytes], ...]: ...
    def __getitem__(self, index: int | slice) -> tuple[str, bytes] | tuple[tuple[str, bytes], ...]:
        if isinstance(index, slice):
            return tuple(self)[index]
        return self.names[index], self.values[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str | bytes) or not isinstance(other, Sequence):
            return NotImplemented
        return tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return tuple(self).__hash__()  # as that of the same pairs in a tuple

    def __repr__(self) -> str:
        return repr(tuple(self))


class UnreadValue(bytes):
    """The empty value of a record that the adapter did not unpack, with the reason as a code and a sentence."""

    code: str
    message: str

    def __new__(cls, code: str, message: str) -> Self:
        self = super().__new__(cls)
        self.code, self.message = code, message
        return self


class TopicPartition(NamedTuple):
    """One partition of one topic. Equal to any tuple (topic, partition)."""

    topic: str
    partition: int


class Record(Protocol):
    """One record as read from the log."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since the epoch; append time on the mesh's own topics."""
        ...

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class StoredRecord(NamedTuple):
    """A `Record` as plain values."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class NewRecord(NamedTuple):
    """A record to append. Without `partition`, murmur2 of the key selects it, as in every Kafka client."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None


def coordinates(record: Record) -> str:
    """Return `topic:partition:offset`, the name of a record without an id."""
    return f"{record.topic}:{record.partition}:{record.offset}"


class Position(NamedTuple):
    """The place of one record on a log."""

    topic: str
    partition: int
    offset: int


def parse_coordinates(text: str) -> Position | None:
    """Read what `coordinates` wrote; None for another text."""
    topic, *numbers = text.rsplit(":", 2)
    if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
        return None
    return Position(topic, int(numbers[0]), int(numbers[1]))


def record_bytes(record: NewRecord) -> int:
    """Return the size of a record, as every log compares it with its limit.

    It is the size of a Kafka batch with this record alone: key, value, names and values of headers, framing.
    """
    size = 3 + _field_bytes(record.key) + _field_bytes(record.value) + _varint_bytes(len(record.headers))
    for name, value in record.headers:
        size += _field_bytes(name.encode()) + _field_bytes(value)
    return BATCH_BYTES + _varint_bytes(size) + size


def too_large_message(size: int, limit: int) -> str:
    """Say by how much a record is too large."""
    return f"the record takes {size} bytes with key, headers and framing, the limit is {limit}"


def _field_bytes(field: bytes | None) -> int:
    return 1 if field is None else len(field) + _varint_bytes(len(field))


def _varint_bytes(number: int) -> int:
    """Return the bytes of a length as a zigzag varint, seven bits in each byte."""
    return max(1, ((number << 1).bit_length() + 6) // 7)
