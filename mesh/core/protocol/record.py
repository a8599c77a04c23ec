"""A record on the log, as every wire hands it over and takes it.

`Record` is a protocol with the attribute names of aiokafka's `ConsumerRecord`, so that a record
from Kafka is used as it comes, without a copy. Other wires hand out `StoredRecord`.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol, Self, overload

Headers = Sequence[tuple[str, bytes]]
RECORD_BYTES_MAX: Final = 1_048_576
"""Size of the largest record that a log takes, where nothing else is set."""
RECORD_BYTES_MIN: Final = 8_192
"""Least value of that limit: the last replacement of a refused record (`core.publishing.replacement_records`) is never
larger than this."""
BATCH_BYTES: Final = 61
"""Bytes that Kafka puts before the records of a batch."""


class PackedHeaders(Sequence[tuple[str, bytes]]):
    """Headers with names and values apart, one value for each name. Pairs are made as they are looked at.

    Records have few different lists of names, which are shared. Making twelve pairs a record takes longer than all the
    rest of reading it from a file, and keeps the garbage collector busy.
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
        return tuple(self).__hash__()  # equal to that of the same pairs in a tuple; no decision knows it

    def __repr__(self) -> str:
        return repr(tuple(self))


class UnreadValue(bytes):
    """The value of a record that the wire did not read. It is empty, and says why by a reason code and a sentence."""

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
    """A record to append. `partition` None means: murmur2 of the key, as every Kafka client does."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None


def coordinates(record: Record) -> str:
    """`topic:partition:offset`, the name of a record that has no other."""
    return f"{record.topic}:{record.partition}:{record.offset}"


def record_bytes(record: NewRecord) -> int:
    """The size of a record, as every log counts it against its limit.

    It is the size of a Kafka batch that holds this record alone: key, value, names and values of headers, framing.
    """
    size = 3 + _field_bytes(record.key) + _field_bytes(record.value) + _varint_bytes(len(record.headers))
    for name, value in record.headers:
        size += _field_bytes(name.encode()) + _field_bytes(value)
    return BATCH_BYTES + _varint_bytes(size) + size


def too_large_message(size: int, limit: int) -> str:
    """The sentence that says by how much a record is too large."""
    return f"the record takes {size} bytes with key, headers and framing, the limit is {limit}"


def _field_bytes(field: bytes | None) -> int:
    return 1 if field is None else len(field) + _varint_bytes(len(field))


def _varint_bytes(number: int) -> int:
    """Bytes of a length as a zigzag varint, whose bytes hold seven bits each."""
    return max(1, ((number << 1).bit_length() + 6) // 7)
