"""Appending: many calls at once, one batch under way in each partition, verdicts when the broker has spoken.

Records that wait while a batch of their partition is under way travel together in the next one: no delay when idle,
large batches under load. A batch the broker refuses is sifted record by record; any error that leaves open what was
appended fails every waiting call and replaces the producer, for its sequence numbers are worth nothing any more.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer, errors

from mesh.adapters.kafka.append_queue import AppendCall, PartitionQueue, QueuedRecord, Verdict
from mesh.adapters.kafka.connection import RETRY_BACKOFF_MS, Connection, ended_within
from mesh.adapters.kafka.producer import kill, make, refusal, sift
from mesh.adapters.kafka.topics import Topics
from mesh.adapters.log_time import LogTime
from mesh.adapters.ports import Appended, Refused
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import NewRecord

_new_tuple: Callable[..., Any] = tuple.__new__  # twice as fast as calling a NamedTuple

LOG_APPEND_TIME = 1
"""Type of a timestamp in an acknowledgement: the broker's own, not one that we sent."""
NEW_TOPIC_WAIT_MS = 300
"""How long an unknown topic may stay unknown: brokers hear of a new one at different times."""


class Appender:
    """Appends through one idempotent producer, which it replaces when it has to."""

    def __init__(
        self, connection: Connection, topics: Topics, time: LogTime, *, timeout_ms: int, record_bytes_max: int
    ) -> None:
        """`time` hears of every acknowledgement."""
        self._connection = connection
        self._topics = topics
        self._time = time
        self._timeout_ms = timeout_ms
        self._record_bytes_max = record_bytes_max
        self._counts: dict[str, int] = {}
        self._lanes: dict[tuple[str, int], PartitionQueue] = {}
        self._ready: deque[PartitionQueue] = deque()
        """Lanes with records that wait and no batch under way."""
        self._flying = 0
        self._refused: list[tuple[PartitionQueue, list[QueuedRecord], Refused]] = []
        self._producer: AIOKafkaProducer | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._failure: LogUnavailable | None = None
        self._reason: LogUnavailable | None = None
        """Why the producer could not be replaced, the last time."""
        self._turn = 0
        """Partition of the next record that has neither key nor partition."""
        self._learning = asyncio.Lock()
        self._asking = 0
        """Calls that hold the lock or wait for it; it looks free for a moment while it is handed on."""
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
        """Let what waits be appended, then stop; what is not done within the timeout fails."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await self._idle.wait()
        except TimeoutError:
            pass  # Its callers are told below.
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.wait([self._pump])
        producer, self._producer = self._producer, None
        self._break(LogUnavailable("the log was closed", where=self._connection.url))
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
                # While one call asks about topics, later ones queue up behind it: order is kept.
                if self._asking or self._unknown(records):
                    await self._ask_first(call, records)
                else:
                    self._enqueue(call, records, {})
                return await call.done
        except TimeoutError as error:
            late = self._connection.late("append", self._timeout_ms, self._reason)
            self._break(late)
            # The pump may hang in the library with the producer that was just given up.
            self._start_pump()
            raise late from error

    # ------------------------------------------------------------------------------------------ where records belong

    def _unknown(self, records: Sequence[NewRecord]) -> set[str]:
        """Topics whose number of partitions is not known, or not any more."""
        counts = self._counts
        return {r.topic for r in records if r.topic not in counts or (r.partition or 0) >= counts[r.topic]}

    async def _ask_first(self, call: AppendCall, records: Sequence[NewRecord]) -> None:
        self._asking += 1
        try:
            async with self._learning:
                self._enqueue(call, records, await self._learn(self._unknown(records)))
        finally:
            self._asking -= 1

    def forget(self, names: Collection[str]) -> None:
        """Ask again about these topics."""
        for name in names:
            self._counts.pop(name, None)

    async def _learn(self, names: set[str]) -> Mapping[str, Refused]:
        """Ask the broker for partition counts; answers the topics that take no record, and why."""
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
        """Put records into their lanes. Nothing awaits in here: two calls never mix their order."""
        counts, lanes = self._counts, self._lanes
        for index, record in enumerate(records):
            topic = record.topic
            if topic in unusable:
                call.settle(index, unusable[topic])
                continue
            partition = record.partition
            if partition is None:
                partition = self._next(counts[topic]) if record.key is None else partition_of(record.key, counts[topic])
            elif not 0 <= partition < counts[topic]:
                message = f"{topic} has no partition {partition}, only 0 to {counts[topic] - 1}"
                call.settle(index, Refused("invalid", message))
                continue
            lane = lanes.get((topic, partition))
            if lane is None:
                lane = lanes[topic, partition] = PartitionQueue(topic, partition, self._record_bytes_max)
            if not lane.waiting and not lane.flying:
                self._ready.append(lane)
            lane.waiting.append(_new_tuple(QueuedRecord, (record, call, index)))
        if self._ready:
            self._idle.clear()
            self._wake.set()

    def _next(self, count: int) -> int:
        self._turn += 1
        return self._turn % count

    # -------------------------------------------------------------------------------------------------- on the way

    async def _run(self) -> None:
        """Send what waits, until cancelled. The only place that touches the producer."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._advance()
            except LogUnavailable as error:
                self._break(error)
            except (errors.KafkaError, AssertionError) as error:
                # AssertionError: aiokafka's way of saying that its metadata lost the partition.
                self._break(self._connection.unavailable("append", repr(error)))
            if not self._flying and not self._ready and not self._refused:
                self._idle.set()

    async def _advance(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._refused:
            if self._flying:
                return  # The batches of other partitions land first; each landing wakes us.
            await self._sift()
        while self._ready and not self._refused:
            producer = self._producer or await self._reconnect()
            if not self._ready:
                return  # Every caller gave up meanwhile.
            lane = self._ready.popleft()
            batch = lane.pack(producer.create_batch, self._record_bytes_max)
            if batch is None:
                continue
            lane.flying = batch.entries
            self._flying += 1
            while lane.partition not in await producer.partitions_for(lane.topic):
                # The topic has grown since the producer asked.
                await producer.client.force_metadata_update()
                await asyncio.sleep(RETRY_BACKOFF_MS / 1000)
            sent_ms = self._time.sent_ms()
            future = await producer.send_batch(batch.builder, lane.topic, partition=lane.partition)
            future.add_done_callback(partial(self._landed, lane, producer, sent_ms))

    def _landed(
        self, lane: PartitionQueue, producer: AIOKafkaProducer, sent_ms: float, future: "asyncio.Future[Any]"
    ) -> None:
        """The broker has spoken about a batch."""
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if producer is not self._producer:
            return  # Its callers were told already.
        entries, lane.flying = lane.flying, []
        self._flying -= 1
        self._wake.set()
        if error is not None:
            refused = refusal(error)
            if refused is None:
                lane.flying = entries
                self._failure = self._connection.unavailable("append", str(error) or repr(error))
            else:
                self._refused.append((lane, entries, refused))
            return
        placed = future.result()
        if placed.offset < 0:
            lane.flying = entries
            self._failure = self._connection.unavailable("append", "an acknowledgement without an offset")
            return
        if placed.timestamp_type == LOG_APPEND_TIME:
            self._time.stamped(placed.timestamp, sent_ms)
        partition = lane.partition
        for offset, (_, call, place) in enumerate(entries, start=placed.offset):
            call.settle(place, _new_tuple(Appended, (partition, offset)))
        if lane.waiting:
            self._ready.append(lane)

    # ------------------------------------------------------------------------------------------------ when it fails

    async def _sift(self) -> None:
        """Give every record of the refused batches its verdict, then go on with a new producer."""
        self._retire()
        while self._refused:
            lane, entries, refused = self._refused[0]
            if refused.code == "unauthorized" or len(entries) == 1:
                fates: list[tuple[QueuedRecord, Refused | int]] = [(entry, refused) for entry in entries]
            else:
                fates = await sift(self._connection, self._record_bytes_max, lane.topic, lane.partition, entries)
                if not any(isinstance(fate, Refused) for _, fate in fates):
                    lane.smaller()
            for entry, fate in fates:
                entry.call.settle(entry.place, fate if isinstance(fate, Refused) else Appended(lane.partition, fate))
            if self._refused:
                del self._refused[0]
            if lane.waiting and lane is self._lanes.get((lane.topic, lane.partition)):
                self._ready.append(lane)

    def _break(self, error: LogUnavailable) -> None:
        """Nobody can know what was appended: tell every caller, drop what waits, replace the producer."""
        for lane in self._lanes.values():
            for entry in (*lane.flying, *lane.waiting):
                entry.call.fail(error)
        for _, entries, _ in self._refused:
            for entry in entries:
                entry.call.fail(error)
        self._lanes, self._flying, self._failure = {}, 0, None
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
        """A new producer, when there is one; tries for as long as somebody waits."""
        while True:
            # The old one's requests end first, else one of its records might overtake a new one.
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
