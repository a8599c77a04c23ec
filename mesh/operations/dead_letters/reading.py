"""Reading what lies between two points of the log."""

from collections.abc import AsyncIterator, Mapping
from typing import Final

from mesh.adapters.ports import Bounds, Log
from mesh.core.protocol.record import Record, TopicPartition

POLL_RECORDS_MAX: Final = 2_000
POLL_WAIT_MS: Final = 200


async def between(log: Log, topic: str, places: Mapping[int, Bounds]) -> AsyncIterator[Record]:
    """What lies between these bounds, in order for each partition."""
    wanted = {TopicPartition(topic, n): b for n, b in places.items() if b.start < b.end}
    if not wanted:
        return
    reader = log.reader({place: b.start for place, b in wanted.items()})
    try:
        while any(reader.position(place) < b.end for place, b in wanted.items()):
            for record in await reader.poll(records_max=POLL_RECORDS_MAX, wait_ms=POLL_WAIT_MS):
                if record.offset < wanted[TopicPartition(record.topic, record.partition)].end:
                    yield record
    finally:
        await reader.close()


async def since(log: Log, topic: str, since_ms: int) -> dict[int, Bounds]:
    """The bounds of what came at or after a moment; 0: of all."""
    bounds = await log.bounds(topic)
    if since_ms <= 0:
        return dict(bounds)
    firsts = await log.offsets_at(topic, since_ms)
    return {n: Bounds(firsts[n], b.end) for n, b in bounds.items()}


async def ends(log: Log, *topics: str) -> dict[TopicPartition, int]:
    """Where these topics end now."""
    return {TopicPartition(topic, n): b.end for topic in topics for n, b in (await log.bounds(topic)).items()}


async def record_at(log: Log, topic: str, partition: int, offset: int) -> Record | None:
    """The record at a place; None where the log has it no more, or never had."""
    if topic not in await log.topics():
        return None
    bounds = (await log.bounds(topic)).get(partition)
    if bounds is None or not bounds.start <= offset < bounds.end:
        return None
    async for record in between(log, topic, {partition: Bounds(offset, offset + 1)}):
        return record
    return None
