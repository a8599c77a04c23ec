"""Appends to Kafka: many calls at once, one batch under way in each partition, verdicts from the broker.

Records that wait while a batch of their partition is under way share the next one: no delay when idle, large batches
under load. A refused batch is bisected to find the records at fault. Any error that leaves open what was appended fails
every waiting call and replaces the producer, whose sequence numbers are invalid then.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer, errors

from mesh.adapters.kafka.append_queue import AppendCall, PartitionQueue, QueuedRecord, Verdict
from mesh.adapters.kafka.connection import RETRY_BACKOFF_MS, Connection, ended_within
from mesh.adapters.kafka.producer import bisect, kill, make, refusal
from mesh.adapters.kafka.topics import Topics
from mesh.adapters.log_time import LogTime
from mesh.adapters.ports import Appended, Refused
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import NewRecord

_new_tuple: Callable[..., Any] = tuple.__new__  # twice as fast as a call of the NamedTuple

LOG_APPEND_TIME = 1
"""Type of a timestamp in an acknowledgement that the broker has set."""
NEW_TOPIC_WAIT_MS = 300
"""Longest wait for an unknown topic: brokers learn of a new one at different times."""


class Appender:
    """An appender with one idempotent producer, which it replaces after certain errors."""

    def __init__(
        self, connection: Connection, topics: Topics, time: LogTime, *, timeout_ms: int, record_bytes_max: int
    ) -> None:
        """`time` gets every acknowledgement."""
        self._connection = connection
        self._topics = topics
        self._time = time
        self._timeout_ms = timeout_ms
        self._record_bytes_max = record_bytes_max
        self._counts: dict[str, int] = {}
        self._queues: dict[tuple[str, int], PartitionQueue] = {}
        self._ready: deque[PartitionQueue] = deque()
        """Queues with waiting records and no batch under way."""
        self._under_way = 0
        self._refused: list[tuple[PartitionQueue, list[QueuedRecord], Refused]] = []
        self._producer: AIOKafkaProducer | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._failure: LogUnavailable | None = None
        self._reason: LogUnavailable | None = None
        """Error of the last failed replacement of the producer."""
        self._round_robin = 0
        """Counter that spreads records without key and partition over the partitions."""
        self._learning = asyncio.Lock()
        self._asking = 0
        """Number of calls that hold the lock or wait for it. The lock is free for a moment between two holders."""
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._pump: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect. Raises LogUnavailable."""
        await self._connect()
        self._start_pump()

    def _start_pump(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            self._end(self._pump)
        self._pump = asyncio.get_running_loop().create_task(self._run(), name="kafka appender")

    async def close(self, timeout_ms: int) -> None:
        """Append what waits, then stop. Calls that are not done within the timeout fail."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._idle.wait()
        except TimeoutError:
            pass  # The callers get an error below.
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        producer, self._producer = self._producer, None
        self._fail_all(LogUnavailable("the log was closed", where=self._connection.url))
        if producer is not None and not await ended_within(timeout_ms, producer.stop()):
            await kill(producer)
        if self._ending:
            await asyncio.wait(self._ending, timeout=timeout_ms / 1000)

    async def append(self, records: Sequence[NewRecord]) -> list[Verdict]:
        """See `Log.append`."""
        if not records:
            return []
        if self._pump is None or self._pump.done():
            raise LogUnavailable("the log is not open", where=self._connection.url, remedy="Call start first")
        call = AppendCall(len(records))
        try:
            async with asyncio.timeout(self._timeout_ms / 1000):
                # While one call asks about topics, later ones wait behind it, so that order is kept.
                if self._asking or self._topics_to_update(records):
                    await self._ask_first(call, records)
                else:
                    self._enqueue(call, records, {})
                return await call.done
        except TimeoutError as error:
            late = self._connection.late("append", self._timeout_ms, self._reason)
            self._fail_all(late)
            # The pump may hang in the library with the abandoned producer.
            self._start_pump()
            raise late from error

    # ------------------------------------------------------------------------------------------------- partitions

    def _topics_to_update(self, records: Sequence[NewRecord]) -> set[str]:
        """Return the topics whose number of partitions is unknown or out of date."""
        counts = self._counts
        return {r.topic for r in records if r.topic not in counts or (r.partition or 0) >= counts[r.topic]}

    async def _ask_first(self, call: AppendCall, records: Sequence[NewRecord]) -> None:
        self._asking += 1
        try:
            async with self._learning:
                unusable = await self._learn(self._topics_to_update(records))
                # Counts are forgotten while the broker is asked if topics are created or another call fails.
                while unknown := {record.topic for record in records} - self._counts.keys() - unusable.keys():
                    unusable |= await self._learn(unknown)
                self._enqueue(call, records, unusable)
        finally:
            self._asking -= 1

    def forget(self, names: Collection[str]) -> None:
        """Forget the partition counts of these topics, so that they are read again."""
        for name in names:
            self._counts.pop(name, None)

    async def _learn(self, names: set[str]) -> dict[str, Refused]:
        """Read partition counts from the broker. Returns the topics that take no record, with the reason."""
        if not names:
            return {}
        deadline = asyncio.get_running_loop().time() + NEW_TOPIC_WAIT_MS / 1000
        while True:
            described = await self._topics.describe(names, timeout_ms=self._timeout_ms)
            unusable: dict[str, Refused] = {}
            for name, topic in described.items():
                if topic.leaders:
                    self._counts[name] = len(topic.leaders)
                else:
                    error = topic.error or errors.LeaderNotAvailableError
                    refused = refusal(error) or Refused("unknown_topic", str(error.description))
                    unusable[name] = refused._replace(message=f"{name}: {refused.message}")
            late = asyncio.get_running_loop().time() > deadline
            if late or "unknown_topic" not in {refused.code for refused in unusable.values()}:
                return unusable
            await asyncio.sleep(RETRY_BACKOFF_MS / 1000)

    def _enqueue(self, call: AppendCall, records: Sequence[NewRecord], unusable: Mapping[str, Refused]) -> None:
        """Put records into the queues of their partitions. Contains no await, so the order of two calls never mixes."""
        counts, queues = self._counts, self._queues
        for index, record in enumerate(records):
            topic = record.topic
            if topic in unusable:
                call.complete(index, unusable[topic])
                continue
            partition = record.partition
            if partition is None:
                partition = self._next(counts[topic]) if record.key is None else partition_of(record.key, counts[topic])
            elif not 0 <= partition < counts[topic]:
                message = f"{topic} has no partition {partition}, only 0 to {counts[topic] - 1}"
                call.complete(index, Refused("invalid", message))
                continue
            queue = queues.get((topic, partition))
            if queue is None:
                queue = queues[topic, partition] = PartitionQueue(topic, partition, self._record_bytes_max)
            if not queue.waiting and not queue.under_way:
                self._ready.append(queue)
            queue.waiting.append(_new_tuple(QueuedRecord, (record, call, index)))
        if self._ready:
            self._idle.clear()
            self._wake.set()

    def _next(self, count: int) -> int:
        self._round_robin += 1
        return self._round_robin % count

    # -------------------------------------------------------------------------------------------------- on the way

    async def _run(self) -> None:
        """Send waiting records until cancelled. No other code uses the producer."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._advance()
            except LogUnavailable as error:
                self._fail_all(error)
            except (errors.KafkaError, AssertionError) as error:
                # AssertionError: aiokafka raises it when its metadata has lost the partition.
                self._fail_all(self._connection.unavailable("append", repr(error)))
            if not self._under_way and not self._ready and not self._refused:
                self._idle.set()

    async def _advance(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._refused:
            if self._under_way:
                return  # Wait for the batches of other partitions; each acknowledgement wakes the pump.
            await self._bisect_refused()
        while self._ready and not self._refused:
            producer = self._producer or await self._reconnect()
            if not self._ready:
                return  # All callers have given up meanwhile.
            queue = self._ready.popleft()
            batch = queue.pack(producer.create_batch, self._record_bytes_max)
            if batch is None:
                continue
            queue.under_way = batch.entries
            self._under_way += 1
            while queue.partition not in await producer.partitions_for(queue.topic):
                # The topic has more partitions than the producer knows.
                await producer.client.force_metadata_update()
                await asyncio.sleep(RETRY_BACKOFF_MS / 1000)
            sent_ms = self._time.sent_ms()
            future = await producer.send_batch(batch.builder, queue.topic, partition=queue.partition)
            future.add_done_callback(partial(self._on_answer, queue, producer, sent_ms))

    def _on_answer(
        self, queue: PartitionQueue, producer: AIOKafkaProducer, sent_ms: float, future: "asyncio.Future[Any]"
    ) -> None:
        """Handle the broker's answer to a batch."""
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if producer is not self._producer:
            return  # Its callers have got an error already.
        entries, queue.under_way = queue.under_way, []
        self._under_way -= 1
        self._wake.set()
        if error is not None:
            refused = refusal(error)
            if refused is None:
                queue.under_way = entries
                self._failure = self._connection.unavailable("append", str(error) or repr(error))
            else:
                self._refused.append((queue, entries, refused))
            return
        stored = future.result()
        if stored.offset < 0:
            queue.under_way = entries
            self._failure = self._connection.unavailable("append", "an acknowledgement without an offset")
            return
        if stored.timestamp_type == LOG_APPEND_TIME:
            self._time.stamped(stored.timestamp, sent_ms)
        partition = queue.partition
        for offset, (_, call, index) in enumerate(entries, start=stored.offset):
            call.complete(index, _new_tuple(Appended, (partition, offset)))
        if queue.waiting:
            self._ready.append(queue)

    # ------------------------------------------------------------------------------------------------ when it fails

    async def _bisect_refused(self) -> None:
        """Find the verdict of each record of the refused batches, then go on with a new producer."""
        self._retire()
        while self._refused:
            queue, entries, refused = self._refused[0]
            if refused.code == "unauthorized" or len(entries) == 1:
                verdicts: list[tuple[QueuedRecord, Refused | int]] = [(entry, refused) for entry in entries]
            else:
                verdicts = await bisect(self._connection, self._record_bytes_max, queue.topic, queue.partition, entries)
                if not any(isinstance(verdict, Refused) for _, verdict in verdicts):
                    queue.reduce_batches()
            for entry, verdict in verdicts:
                entry.call.complete(
                    entry.at, verdict if isinstance(verdict, Refused) else Appended(queue.partition, verdict)
                )
            if self._refused:
                del self._refused[0]
            if queue.waiting and queue is self._queues.get((queue.topic, queue.partition)):
                self._ready.append(queue)

    def _fail_all(self, error: LogUnavailable) -> None:
        """Fail every call, drop the waiting records and replace the producer: what was appended is unknown."""
        for queue in self._queues.values():
            for entry in (*queue.under_way, *queue.waiting):
                entry.call.fail(error)
        for _, entries, _ in self._refused:
            for entry in entries:
                entry.call.fail(error)
        self._queues, self._under_way, self._failure = {}, 0, None
        self._counts.clear()
        self._ready.clear()
        self._refused.clear()
        self._retire()
        self._idle.set()

    def _retire(self) -> None:
        if self._producer is not None:
            self._end(asyncio.get_running_loop().create_task(kill(self._producer), name="end a kafka producer"))
            self._producer = None

    def _end(self, task: asyncio.Task[None]) -> None:
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _reconnect(self) -> AIOKafkaProducer:
        """Connect a new producer; try again as long as a call waits."""
        while True:
            # The requests of the old producer end first, or one of its records might overtake a new one.
            if self._ending:
                await asyncio.wait(self._ending)
            try:
                return await self._connect()
            except LogUnavailable as error:
                self._reason = error
            if not self._ready:
                raise self._reason
            await asyncio.sleep(RETRY_BACKOFF_MS / 1000)

    async def _connect(self) -> AIOKafkaProducer:
        producer = make(self._connection, self._record_bytes_max)
        try:
            await self._connection.start("connect a producer", producer.start())
        except BaseException:
            await kill(producer)
            raise
        self._producer, self._reason = producer, None
        return producer
