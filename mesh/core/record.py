"""A record on the log, as every wire hands it over and takes it.

`Record` is a protocol with the attribute names of aiokafka's `ConsumerRecord`, so that a record
from Kafka is used as it comes, without a copy. Other wires hand out `StoredRecord`.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

Headers = Sequence[tuple[str, bytes]]


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
