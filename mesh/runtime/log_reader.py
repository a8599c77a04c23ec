"""Reading a span of a partition, from one offset to another, with a deadline on the log's silence."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

from mesh.adapters.ports import Clock, Log
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import Record, TopicPartition

RECORDS_MAX = 500
"""Read and folded at once: about 12 ms, after which heartbeats and live partitions have their turn."""
WAIT_MS = 100
SILENCE_MS_MAX = 30_000


async def read_span(
    log: Log, clock: Clock, partition: TopicPartition, start: int, end: int
) -> AsyncGenerator[Sequence[Record], None]:
    """Records at `start` up to, without, `end`, in order and in small lots; lets others run between two of them.

    Raises LogUnavailable when nothing comes for 30 s although the end is not reached. Close it (`aclosing`).
    """
    if start >= end:
        return
    reader = log.reader({partition: start})
    heard_ms = clock.monotonic_ms()
    try:
        while (position := reader.position(partition)) < end:
            records = await reader.poll(records_max=RECORDS_MAX, wait_ms=WAIT_MS)
            await asyncio.sleep(0)
            wanted = [record for record in records if record.offset < end]
            if wanted:
                yield wanted
            if records or reader.position(partition) > position:
                heard_ms = clock.monotonic_ms()
            elif clock.monotonic_ms() - heard_ms > SILENCE_MS_MAX:
                raise LogUnavailable(
                    "a partition does not go on",
                    where=f"{log.url} {partition.topic}:{partition.partition}",
                    expected=f"records up to offset {end}",
                    got=f"nothing after {position} for {SILENCE_MS_MAX} ms",
                )
    finally:
        await reader.close()
