"""Topics on Kafka for the comparison: made, filled, counted, deleted. Used only by the one who measures."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from mesh.core.protocol.partitioner import partition_of

PARTITIONS = 6
READY_S = 20.0


class Topics:
    """A connection to the broker. `async with opened(bootstrap) as topics`."""

    def __init__(self, consumer: AIOKafkaConsumer, producer: AIOKafkaProducer, admin: AIOKafkaAdminClient) -> None:
        self._consumer, self._producer, self._admin = consumer, producer, admin

    async def make(self, *names: str) -> None:
        """Make topics of six partitions, and wait until they have leaders."""
        await self._admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
        async with asyncio.timeout(READY_S):
            while {len(await self._partitions(name)) for name in names} != {PARTITIONS}:  # noqa: ASYNC110 - a broker's
                await asyncio.sleep(0.05)

    async def delete(self, names: Iterable[str]) -> None:
        """Delete topics."""
        await self._admin.delete_topics(list(names))

    async def fill(self, topic: str, records: Iterable[tuple[bytes, bytes, Any]]) -> None:
        """Append (key, value, headers), in the partitions that the keys fall into, and wait for all."""
        sent, building = [], [self._producer.create_batch() for _ in range(PARTITIONS)]
        for key, value, headers in records:
            number = partition_of(key, PARTITIONS)
            if building[number].append(key=key, value=value, timestamp=None, headers=list(headers)) is None:
                sent.append(await self._producer.send_batch(building[number], topic, partition=number))
                building[number] = self._producer.create_batch()
                building[number].append(key=key, value=value, timestamp=None, headers=list(headers))
        for number, batch in enumerate(building):
            if batch.record_count():
                sent.append(await self._producer.send_batch(batch, topic, partition=number))
        await asyncio.gather(*sent)

    async def _partitions(self, topic: str) -> list[TopicPartition]:
        metadata = await self._admin.describe_topics([topic])
        return [
            TopicPartition(topic, p["partition"])
            for t in metadata
            for p in t["partitions"]
            if p["leader"] >= 0 and not p["error_code"]
        ]

    async def count(self, topic: str) -> int:
        """Records of a topic that was made with `make` or has as many partitions."""
        partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        return sum((await self._consumer.end_offsets(partitions)).values())

    async def committed(self, group: str, topic: str) -> int:
        """Records of the topic that the group will not read again."""
        try:
            offsets = await self._admin.list_consumer_group_offsets(group)
        except KafkaError as error:
            if error.retriable:
                return 0  # Its coordinator is only now being found.
            raise
        return sum(max(0, meta.offset) for tp, meta in offsets.items() if tp.topic == topic)

    async def keys(self, topic: str) -> Counter[str]:
        """Count the records of each key on the topic now."""
        partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        ends = await self._consumer.end_offsets(partitions)
        self._consumer.assign(partitions)
        await self._consumer.seek_to_beginning(*partitions)
        found: Counter[str] = Counter()
        while found.total() < sum(ends.values()):
            for records in (await self._consumer.getmany(timeout_ms=200)).values():
                found.update(record.key.decode() for record in records)
        return found


@asynccontextmanager
async def opened(bootstrap: str) -> AsyncIterator[Topics]:
    """Connected inside the block."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, max_batch_size=256 * 1024)
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    started: list[Any] = []
    try:
        for client in (consumer, producer, admin):
            started.append(client)
            await client.start()
        yield Topics(consumer, producer, admin)
    finally:
        for client in started:
            await (client.close() if client is admin else client.stop())
