"""hop by hand on aiokafka: `getmany`, one produced batch a partition awaited, one commit a batch. At least once.

This is the fastest program that uses only the library. An answer goes to the partition of its key by CRC, in batches
built here, since the library's own `send` costs three times as much a record.
"""

import asyncio
import zlib
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.peers.work import Hop, hop, worked

RECORDS_MAX = 2_000


async def publish(producer: AIOKafkaProducer, topic: str, answers: Sequence[tuple[bytes, bytes]], count: int) -> None:
    """Append the answers by key and wait until all replicas have them."""
    batches: dict[int, Any] = {}
    sent = []
    for key, value in answers:
        partition = zlib.crc32(key) % count
        batch = batches.get(partition)
        if batch is None:
            batch = batches[partition] = producer.create_batch()
        if batch.append(key=key, value=value, timestamp=None) is None:
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            batch = batches[partition] = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None)
    sent += [await producer.send_batch(batch, topic, partition=partition) for partition, batch in batches.items()]
    await asyncio.gather(*sent)


async def serve(options: Hop) -> None:
    """For ever."""
    consumer = AIOKafkaConsumer(
        options.source,
        bootstrap_servers=options.bootstrap,
        group_id=options.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=options.session_ms,
        heartbeat_interval_ms=options.session_ms // 6,
    )
    producer = AIOKafkaProducer(bootstrap_servers=options.bootstrap, acks="all", max_batch_size=256 * 1024)
    await consumer.start()
    await producer.start()
    count = len(await producer.partitions_for(options.target))
    slow = options.slowness
    while True:
        got = await consumer.getmany(timeout_ms=500, max_records=8 if slow.work_ms else RECORDS_MAX)
        if got:
            records = [record for part in got.values() for record in part]
            answers = []
            for record in records:
                if slow.work_ms:
                    await slow.wait()
                answers.append((record.key, worked(record.value)))
            await publish(producer, options.target, answers, count)
            await consumer.commit()


if __name__ == "__main__":
    asyncio.run(serve(hop()))
