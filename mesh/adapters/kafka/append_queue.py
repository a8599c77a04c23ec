"""Records on their way to the broker: a queue for each partition, and the calls that wait for verdicts."""

import asyncio
import copy
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from aiokafka.producer.message_accumulator import BatchBuilder

from mesh.adapters.ports import Appended, Refused
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord, PackedHeaders, too_large_message

Verdict = Appended | Refused
BATCH_BYTES_MIN = 16_384


class AppendCall:
    """One call of `append`, which collects a verdict for each of its records."""

    __slots__ = ("_missing", "_verdicts", "done")

    def __init__(self, size: int) -> None:
        self.done: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._verdicts: list[Any] = [None] * size
        self._missing = size

    def complete(self, index: int, verdict: Verdict) -> None:
        """Set the verdict of one record."""
        self._verdicts[index] = verdict
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result(self._verdicts)

    def fail(self, error: LogUnavailable) -> None:
        """Fail the call: the verdict of at least one record is unknown."""
        if not self.done.done():
            # A copy, since each caller adds its own traceback.
            self.done.set_exception(copy.copy(error))
            # Read here, since the caller may have gone (timeout, cancellation): asyncio would log a lost error.
            self.done.exception()


class QueuedRecord(NamedTuple):
    """A record, its call, and the index of its verdict in that call."""

    record: NewRecord
    call: AppendCall
    at: int


class PackedBatch(NamedTuple):
    """Records of one partition, packed for the broker."""

    builder: BatchBuilder
    entries: list[QueuedRecord]


class PartitionQueue:
    """Records for one partition, in order: the waiting ones, and those of the batch under way."""

    __slots__ = ("bytes_max", "partition", "topic", "under_way", "waiting")

    def __init__(self, topic: str, partition: int, bytes_max: int) -> None:
        self.topic = topic
        self.partition = partition
        self.bytes_max = bytes_max
        self.waiting: deque[QueuedRecord] = deque()
        self.under_way: list[QueuedRecord] = []

    def pack(self, empty: Callable[[], BatchBuilder], record_bytes_max: int) -> PackedBatch | None:
        """Pack the next batch; None when no record is left. Records that fit no batch are refused."""
        builder, entries = empty(), list[QueuedRecord]()
        limited = self.bytes_max < record_bytes_max  # otherwise the builder itself reports that it is full
        while self.waiting:
            entry = self.waiting[0]
            problem = fill(builder, entry.record)
            if problem is None and not entries and builder.size() > record_bytes_max:
                problem, builder = Refused("too_large", too_large_message(builder.size(), record_bytes_max)), empty()
            if problem is FULL:
                break
            self.waiting.popleft()
            if isinstance(problem, Refused):
                entry.call.complete(entry.at, problem)
                continue
            entries.append(entry)
            if limited and builder.size() >= self.bytes_max:
                break
        return PackedBatch(builder, entries) if entries else None

    def reduce_batches(self) -> None:
        """Halve the batch size: the broker refused a batch as too large, but none of its records."""
        self.bytes_max = max(BATCH_BYTES_MIN, self.bytes_max // 2)


FULL = object()


def fill(builder: BatchBuilder, record: NewRecord) -> Refused | object | None:
    """Add a record to a batch. Returns FULL when it has no room, Refused when the record is invalid."""
    headers = record.headers
    if type(headers) is PackedHeaders:
        headers = list(zip(headers.names, headers.values))  # noqa: B905  # equal in length
    elif type(headers) is not list:
        headers = list(headers)  # The compiled part of the library takes lists only.
    try:
        added = builder.append(timestamp=None, key=record.key, value=record.value, headers=headers)
    except (TypeError, ValueError, AttributeError) as error:
        return Refused("invalid", f"not a record (keys and values are bytes, headers (str, bytes)): {error}")
    return None if added is not None else FULL
