"""A reader of chosen partitions from chosen offsets, outside any group."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, errors
from aiokafka.structs import TopicPartition as KafkaPartition

from mesh.adapters.kafka.connection import Connection, end_consumer
from mesh.adapters.kafka.member import FETCH_WAIT_MS
from mesh.adapters.kafka.topics import Topics
from mesh.core.errors import LogUnavailable, NotFound
from mesh.core.protocol.record import Record, TopicPartition


class KafkaReader:
    """`Reader` on aiokafka. Connects at the first `poll`."""

    def __init__(
        self, connection: Connection, topics: Topics, positions: Mapping[TopicPartition, int], *, record_bytes_max: int
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._positions = dict(positions)
        """Offsets to begin with. The consumer has its own positions once it is connected."""
        self._record_bytes_max = record_bytes_max
        self._consumer: AIOKafkaConsumer | None = None
        self._spent: LogUnavailable | None = None
        self.closed = False

    async def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        """See `Reader.poll`. Raises NotFound for partitions that do not exist, and LogUnavailable."""
        if self.closed:
            raise LogUnavailable("the reader is closed", where=self._connection.url)
        if self._spent is not None:
            raise self._spent
        if not self._positions:
            await asyncio.sleep(wait_ms / 1000)
            return []
        consumer = self._consumer or await self._connect()
        try:
            fetched = await consumer.getmany(timeout_ms=wait_ms, max_records=records_max)
        except errors.OffsetOutOfRangeError as error:
            await self._into_range(consumer, error.args[0])
            return []
        except errors.KafkaError as error:
            # The library may have dropped fetched records of other partitions: this reader must not go on.
            self._spent = self._connection.unavailable("read", str(error))
            self._spent.remedy += ", then open another reader"
            raise self._spent from error
        if not wait_ms:
            # Without a wait the library does not yield to the loop, and no record would arrive.
            await asyncio.sleep(0)
        return [record for records in fetched.values() for record in records]

    async def _connect(self) -> AIOKafkaConsumer:
        described = await self._topics.describe({tp.topic for tp in self._positions})
        missing = [tp for tp in sorted(self._positions) if tp.partition not in described[tp.topic].leaders]
        if missing:
            names = ", ".join(f"{tp.topic}/{tp.partition}" for tp in missing)
            raise NotFound(f"there is no partition {names}", where=self._connection.url, remedy="Check the names")
        consumer = AIOKafkaConsumer(
            **self._connection.arguments("reader"),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=max(1_048_576, self._record_bytes_max),
        )
        try:
            await self._connection.start("connect a reader", consumer.start())
        except BaseException:
            await end_consumer(1_000, consumer)
            raise
        consumer.assign([KafkaPartition(*tp) for tp in self._positions])
        for tp, offset in self._positions.items():
            consumer.seek(KafkaPartition(*tp), offset)
        self._consumer = consumer
        return consumer

    async def _into_range(self, consumer: AIOKafkaConsumer, asked: Mapping[KafkaPartition, int]) -> None:
        """Go on with the first record left if retention has removed the wanted one. Ahead of the end: wait."""
        for tp, offset in asked.items():
            bounds = (await self._topics.bounds(tp.topic))[tp.partition]
            if offset < bounds.start:
                consumer.seek(tp, bounds.start)

    def position(self, partition: TopicPartition) -> int:
        """See `Reader.position`. Raises NotFound for a partition that is not read here."""
        self._require(partition)
        state = self._state(partition)
        return self._positions[partition] if state is None else int(state.position)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `Reader.seek`. Raises NotFound for a partition that is not read here."""
        self._require(partition)
        self._positions[partition] = offset
        if self._consumer is not None:
            self._consumer.seek(KafkaPartition(*partition), offset)

    def _require(self, partition: TopicPartition) -> None:
        if partition not in self._positions:
            name = f"{partition.topic}/{partition.partition}"
            raise NotFound(f"{name} is not read here", remedy="Name it in `Log.reader`")

    def _state(self, partition: TopicPartition) -> Any:
        if self._consumer is None:
            return None
        state = self._consumer._subscription.subscription.assignment.state_value(partition)
        return state if state is not None and state.has_valid_position else None

    async def close(self) -> None:
        """See `Reader.close`."""
        self.closed = True
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await end_consumer(5_000, consumer)
