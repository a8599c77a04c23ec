"""Records on their way to the broker: a lane for each partition, and the calls that wait for verdicts."""

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
    """One call of `append`: collects a verdict for each of its records."""

    __slots__ = ("_missing", "_verdicts", "done")

    def __init__(self, size: int) -> None:
        self.done: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._verdicts: list[Any] = [None] * size
        self._missing = size

    def settle(self, index: int, verdict: Verdict) -> None:
        """The fate of one record is known."""
        self._verdicts[index] = verdict
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result(self._verdicts)

    def fail(self, error: LogUnavailable) -> None:
        """The fate of at least one record will not be known."""
        if not self.done.done():
            # A copy: each caller's traceback is its own.
            self.done.set_exception(copy.copy(error))
            # Read here, since the caller may have gone (its own deadline, cancelled): that is no lost error.
            self.done.exception()


class QueuedRecord(NamedTuple):
    """A record, and where its verdict belongs."""

    record: NewRecord
    call: AppendCall
    place: int


class PackedBatch(NamedTuple):
    """Records of one lane, packed for the broker."""

    builder: BatchBuilder
    entries: list[QueuedRecord]


class PartitionQueue:
    """Records for one partition, in order: those that wait, and those of the one batch that is under way."""

    __slots__ = ("bytes_max", "flying", "partition", "topic", "waiting")

    def __init__(self, topic: str, partition: int, bytes_max: int) -> None:
        self.topic = topic
        self.partition = partition
        self.bytes_max = bytes_max
        self.waiting: deque[QueuedRecord] = deque()
        self.flying: list[QueuedRecord] = []

    def pack(self, empty: Callable[[], BatchBuilder], record_bytes_max: int) -> PackedBatch | None:
        """The next batch; None when nothing is left. Records that no batch could carry are refused on the way."""
        builder, entries = empty(), list[QueuedRecord]()
        watched = self.bytes_max < record_bytes_max  # else the builder says itself when it is full
        while self.waiting:
            entry = self.waiting[0]
            problem = fill(builder, entry.record)
            if problem is None and not entries and builder.size() > record_bytes_max:
                problem, builder = Refused("too_large", too_large_message(builder.size(), record_bytes_max)), empty()
            if problem is FULL:
                break
            self.waiting.popleft()
            if isinstance(problem, Refused):
                entry.call.settle(entry.place, problem)
                continue
            entries.append(entry)
            if watched and builder.size() >= self.bytes_max:
                break
        return PackedBatch(builder, entries) if entries else None

    def smaller(self) -> None:
        """The broker found a batch too large although no record of it is: this topic's limit is below ours."""
        self.bytes_max = max(BATCH_BYTES_MIN, self.bytes_max // 2)


FULL = object()


def fill(builder: BatchBuilder, record: NewRecord) -> Refused | object | None:
    """Put one record into a batch. Answers FULL when it has no room, Refused when it is no record at all."""
    headers = record.headers
    if type(headers) is PackedHeaders:
        headers = list(zip(headers.names, headers.values))  # noqa: B905  # equal in length
    elif type(headers) is not list:
        headers = list(headers)  # The library's compiled part takes nothing else.
    try:
        added = builder.append(timestamp=None, key=record.key, value=record.value, headers=headers)
    except (TypeError, ValueError, AttributeError) as error:
        return Refused("invalid", f"not a record (keys and values are bytes, headers (str, bytes)): {error}")
    return None if added is not None else FULL
