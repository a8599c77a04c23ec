"""Records whose header names are no UTF-8: producers other than Java's can write them, and aiokafka chokes for ever.

One such record would stop its partition for good; worse, `getmany` then drops what it had already taken from other
partitions. So the fetcher is given batches that never choke: what is no UTF-8 in a header's name is read as `\\xff`.
Key, value and all other headers are untouched.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


class _Forgiving(bytearray):
    """Bytes that are text in any case."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Forgiving(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "") -> str:
        return bytes(self).decode(encoding, "backslashreplace")


class _ForgivingBatch(_DefaultRecordBatchPy):  # type: ignore[misc]  # aiokafka is not typed
    """The library's own reader in Python, over forgiving bytes: slow, and needed only when the fast one gives up."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        if not isinstance(self._buffer, _Forgiving):
            self._buffer = _Forgiving(self._buffer)


class _Batch:
    """A batch read by the fast reader, and by the forgiving one from where that gives up."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._fast = DefaultRecordBatch(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fast, name)

    def __next__(self) -> Any:
        return next(self._fast)

    def __iter__(self) -> Iterator[Any]:
        read = 0
        try:
            for record in self._fast:
                yield record
                read += 1
        except UnicodeDecodeError:
            yield from islice(_ForgivingBatch(self._data), read, None)


class ForgivingRecords(_MemoryRecordsPy):  # type: ignore[misc]  # aiokafka is not typed
    """The batches of one fetched partition."""

    def next_batch(self) -> Any:
        """The next batch; None when there is none. Formats before Kafka 0.11 are left to the library."""
        data = self._next_slice
        if data is None or len(data) < self.MIN_SLICE or data[self.MAGIC_OFFSET] < 2:
            return super().next_batch()
        self._cache_next()
        return _Batch(data)


def install() -> None:
    """Give the library's fetcher these records. The class is looked up when a fetch is answered."""
    fetcher.MemoryRecords = ForgivingRecords
