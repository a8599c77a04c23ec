"""The one reader of stored records between two offsets, with a deadline on the log's silence.

Without that deadline a read would wait without end for records that a damaged or truncated partition no longer has.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, Clock, Log
from mesh.core.errors import LogUnavailable, NotFound
from mesh.core.protocol.record import Record, TopicPartition

RECORDS_MAX = 500
"""Records of a batch. Folding them takes about 12 ms, during which no heartbeat is sent and no other task runs."""
WAIT_MS = 100
SILENCE_MS_MAX = 30_000


async def read_batches(
    log: Log, topic: str, bounds: Mapping[int, Bounds], clock: Clock | None = None
) -> AsyncGenerator[Sequence[Record]]:
    """Read what lies between the bounds of each partition, in order per partition, in batches of at most `RECORDS_MAX`.

    Other tasks run between two batches. Close the generator (`aclosing`). Raises NotFound, and LogUnavailable when no
    record comes for 30 s before the ends are reached.
    """
    monotonic_ms = (clock or SystemClock()).monotonic_ms
    wanted = {TopicPartition(topic, number): each for number, each in bounds.items() if each.start < each.end}
    positions = {partition: each.start for partition, each in wanted.items()}
    if not wanted:
        return
    reader = log.reader(positions)
    answered_ms = monotonic_ms()
    try:
        while behind := [partition for partition, each in wanted.items() if positions[partition] < each.end]:
            records = await reader.poll(records_max=RECORDS_MAX, wait_ms=WAIT_MS)
            await asyncio.sleep(0)
            before, positions = positions, {partition: reader.position(partition) for partition in wanted}
            if any(positions[partition] > each.end for partition, each in wanted.items()):
                ends = {partition.partition: each.end for partition, each in wanted.items()}
                records = [record for record in records if record.offset < ends[record.partition]]
            if records:
                yield records
            if records or positions != before:
                answered_ms = monotonic_ms()
            elif monotonic_ms() - answered_ms > SILENCE_MS_MAX:
                silent = behind[0]
                raise LogUnavailable(
                    "a partition does not go on",
                    where=f"{log.url} {topic}:{silent.partition}",
                    expected=f"records up to offset {wanted[silent].end}",
                    got=f"nothing after {positions[silent]} for {SILENCE_MS_MAX} ms",
                )
    finally:
        await reader.close()


async def read_records(
    log: Log, topic: str, bounds: Mapping[int, Bounds], clock: Clock | None = None
) -> AsyncGenerator[Record]:
    """Read as `read_batches` does, record by record."""
    async with aclosing(read_batches(log, topic, bounds, clock)) as batches:
        async for records in batches:
            for record in records:
                yield record


async def record_at(log: Log, topic: str, partition: int, offset: int) -> Record | None:
    """Return the record at an offset, or None if the log does not hold it. Raises LogUnavailable."""
    try:
        bounds = (await log.bounds(topic)).get(partition)
    except NotFound:
        return None
    if bounds is None or not bounds.start <= offset < bounds.end:
        return None
    async with aclosing(read_records(log, topic, {partition: Bounds(offset, offset + 1)})) as records:
        return await anext(records, None)


async def bounds_since(log: Log, topic: str, since_ms: int) -> Mapping[int, Bounds]:
    """Return the bounds of the records stamped at or after a time in milliseconds; 0: of all records."""
    bounds = await log.bounds(topic)
    if since_ms <= 0:
        return bounds
    firsts = await log.offsets_at(topic, since_ms)
    return {number: Bounds(firsts[number], each.end) for number, each in bounds.items()}


async def end_offsets(log: Log, *topics: str) -> dict[TopicPartition, int]:
    """Return the offset behind the last record of each partition of these topics."""
    return {TopicPartition(topic, n): each.end for topic in topics for n, each in (await log.bounds(topic)).items()}
