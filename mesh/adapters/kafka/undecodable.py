"""Records whose header names are not UTF-8. Producers other than Java's can write them, and aiokafka cannot read them.

One such record would stop its partition for good. Worse, `getmany` then drops the fetched records of other partitions.
So the fetcher gets batches that read every header name: invalid bytes in it are read as `\\xff`. Key, value and all
other headers are unchanged.

For the same reason compressed batches are decompressed by `unpacked`. Records are delivered in batches of bounded size,
however small they were on the broker.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

from mesh.adapters.kafka.unpacked import is_packed, stand_in, unpacked
from mesh.core.protocol.record import UnreadValue

POLL_BYTES_MAX = 8 * 1_048_576
"""Bytes of one partition in one poll, apart from the rest of a batch that was begun in it."""


class _LenientBytes(bytearray):
    """Bytes that any encoding error leaves readable as text."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _LenientBytes(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "") -> str:
        return bytes(self).decode(encoding, "backslashreplace")


class _LenientBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka is not typed
    """The library's reader in Python, over lenient bytes. It is slow, and used only after the fast one fails."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        if not isinstance(self._buffer, _LenientBytes):
            self._buffer = _LenientBytes(self._buffer)


class _Batch:
    """A batch read by the fast reader, and from its first error on by the lenient one."""

    def __init__(self, data: memoryview, begun: Callable[[int], None]) -> None:
        """`begun` gets the decompressed size of the batch before its first record is read."""
        self._data = data
        self._begun = begun
        self._fast = DefaultRecordBatch(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fast, name)

    def __next__(self) -> Any:
        return next(self._fast)

    def __iter__(self) -> Iterator[Any]:
        data: bytes | memoryview = self._data
        if is_packed(self._data):
            data = unpacked(self._data)
            if isinstance(data, UnreadValue):
                yield stand_in(self._data, data)
                return
        self._begun(len(data))
        read = 0
        try:
            for record in DefaultRecordBatch(data):
                yield record
                read += 1
        except UnicodeDecodeError:
            yield from islice(_LenientBatch(data), read, None)


class LenientRecords(_MemoryRecordsPy):  # type: ignore[misc]  # aiokafka is not typed
    """The batches of one fetched partition."""

    bytes_begun = 0
    """Size of the batches of which records were delivered since this was set to 0."""

    def next_batch(self) -> Any:
        """Return the next batch or None. Formats before Kafka 0.11 are left to the library."""
        data = self._next_slice
        if data is None or len(data) < self.MIN_SLICE or data[self.MAGIC_OFFSET] < 2:
            return super().next_batch()
        self._cache_next()
        return _Batch(data, self._begin)

    def _begin(self, size: int) -> None:
        self.bytes_begun += size


class BoundedResult(fetcher.FetchResult):  # type: ignore[misc]  # aiokafka is not typed
    """The fetched records of one partition, delivered in batches of bounded size."""

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return at most `max_records`, and begin no batch once the batches begun have `POLL_BYTES_MAX` bytes."""
        if not self.check_assignment(self._topic_partition) or not self.has_more():
            return []
        batches = self._partition_records._records
        batches.bytes_begun = 0
        found: list[Any] = []
        for record in self._partition_records._records_iterator:
            found.append(record)
            if len(found) == max_records or batches.bytes_begun >= POLL_BYTES_MAX:
                self._update_position()
                return found
        self._update_position()
        self._partition_records: Any = None
        return found


def install() -> None:
    """Replace classes of the library's fetcher, which it looks up for each response."""
    fetcher.MemoryRecords = LenientRecords
    fetcher.FetchResult = BoundedResult
