"""The one reader of stored records between two offsets, with a deadline on the log's silence.

Without that deadline a read would wait without end for records that a damaged or truncated partition no longer has.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, Clock, ReadLog
from mesh.core.errors import LogUnavailable, NotFound
from mesh.core.protocol.record import Record, TopicPartition

RECORDS_MAX = 500
"""Records of a batch. Folding them takes about 12 ms, during which no heartbeat is sent and no other task runs."""
WAIT_MS = 100
SILENCE_MS_MAX = 30_000


class _SpanReader:
    """Reads what lies between the bounds of each partition of a topic."""

    def __init__(self, log: ReadLog, topic: str, bounds: Mapping[int, Bounds], clock: Clock | None) -> None:
        self._monotonic_ms = (clock or SystemClock()).monotonic_ms
        self._where = f"{log.url} {topic}"
        self._wanted = {TopicPartition(topic, number): each for number, each in bounds.items() if each.start < each.end}
        self._positions = {partition: each.start for partition, each in self._wanted.items()}
        self._reader = log.reader(self._positions) if self._wanted else None

    async def next_batch(self) -> Sequence[Record]:
        """Return the next records, at most `RECORDS_MAX`; none when all ends are reached.

        Raises NotFound, and LogUnavailable when no record comes for `SILENCE_MS_MAX`.
        """
        if self._reader is None:
            return ()
        answered_ms = self._monotonic_ms()
        while behind := [
            partition for partition, each in self._wanted.items() if self._positions[partition] < each.end
        ]:
            left = sum(self._wanted[partition].end - self._positions[partition] for partition in behind)
            records = await self._reader.poll(records_max=min(RECORDS_MAX, left), wait_ms=WAIT_MS)
            await asyncio.sleep(0)
            before, self._positions = self._positions, {tp: self._reader.position(tp) for tp in self._wanted}
            if any(self._positions[partition] > each.end for partition, each in self._wanted.items()):
                ends = {partition.partition: each.end for partition, each in self._wanted.items()}
                records = [record for record in records if record.offset < ends[record.partition]]
            if records:
                return records
            if self._positions != before:
                answered_ms = self._monotonic_ms()
            elif self._monotonic_ms() - answered_ms > SILENCE_MS_MAX:
                raise self._silence(behind[0])
        return ()

    def _silence(self, partition: TopicPartition) -> LogUnavailable:
        return LogUnavailable(
            "a partition does not go on",
            where=f"{self._where}:{partition.partition}",
            expected=f"records up to offset {self._wanted[partition].end}",
            got=f"nothing after {self._positions[partition]} for {SILENCE_MS_MAX} ms",
        )

    async def close(self) -> None:
        """Close the reader of the log."""
        if self._reader is not None:
            await self._reader.close()


async def read_batches(
    log: ReadLog, topic: str, bounds: Mapping[int, Bounds], clock: Clock | None = None
) -> AsyncGenerator[Sequence[Record]]:
    """Read what lies between the bounds of each partition, in order per partition, in batches of at most `RECORDS_MAX`.

    Other tasks run between two batches. Close the generator (`aclosing`). Raises NotFound, and LogUnavailable when no
    record comes for 30 s before the ends are reached.
    """
    span = _SpanReader(log, topic, bounds, clock)
    try:
        while records := await span.next_batch():
            yield records
    finally:
        await span.close()


async def read_records(
    log: ReadLog, topic: str, bounds: Mapping[int, Bounds], clock: Clock | None = None
) -> AsyncGenerator[Record]:
    """Read as `read_batches` does, record by record."""
    span = _SpanReader(log, topic, bounds, clock)
    try:
        while records := await span.next_batch():
            for record in records:
                yield record
    finally:
        await span.close()


async def record_at(log: ReadLog, topic: str, partition: int, offset: int) -> Record | None:
    """Return the record at an offset, or None if the log does not hold it. Raises LogUnavailable."""
    try:
        bounds = (await log.bounds(topic)).get(partition)
    except NotFound:
        return None
    if bounds is None or not bounds.start <= offset < bounds.end:
        return None
    async with aclosing(read_records(log, topic, {partition: Bounds(offset, offset + 1)})) as records:
        return await anext(records, None)


async def records_at(log: ReadLog, topic: str, partition: int, offsets: Collection[int]) -> AsyncGenerator[Record]:
    """Yield the records at these offsets, in order, as far as the log holds them. Close the generator.

    Reads all from the first to the last of them in one pass. Raises NotFound, LogUnavailable.
    """
    bounds = (await log.bounds(topic))[partition]
    held = {offset for offset in offsets if bounds.start <= offset < bounds.end}
    if not held:
        return
    span = Bounds(min(held), max(held) + 1)
    async with aclosing(read_batches(log, topic, {partition: span})) as batches:
        async for batch in batches:
            for record in batch:
                if record.offset in held:
                    yield record


async def bounds_between(
    log: ReadLog, topic: str, since_ms: int | None = None, until_ms: int | None = None
) -> Mapping[int, Bounds]:
    """Return the bounds of the records stamped at or after one time and before another, in milliseconds.

    None, and 0 for the first, stand for no limit. Raises NotFound.
    """
    bounds = await log.bounds(topic)
    firsts = await log.offsets_at(topic, since_ms) if since_ms else {}
    lasts = {} if until_ms is None else await log.offsets_at(topic, until_ms)
    found = {}
    for number, each in bounds.items():
        end = max(each.start, min(each.end, lasts.get(number, each.end)))
        found[number] = Bounds(min(max(each.start, firsts.get(number, each.start)), end), end)
    return found


async def end_offsets(log: ReadLog, *topics: str) -> dict[TopicPartition, int]:
    """Return the offset behind the last record of each partition of these topics."""
    return {TopicPartition(topic, n): each.end for topic in topics for n, each in (await log.bounds(topic)).items()}
