"""A Faust app that reads for the monitor on Kafka. `services.monitor` counts, publishes and watches alerts.

Records are acknowledged to Faust only when no window needs them any more (`core.metrics.windows`), so the offset that
its group commits is where the next process begins. A table, kept by Faust in a changelog topic, says which windows are
whole from there. A record that comes again after a crash counts once, since each partition knows its next offset.

Pitfalls of Faust that are guarded here: no web server, no leader topic, no search for code (venusian), no worker that
takes over logging, signals and stdout, raw serializers only, short session timeouts, names that do not depend on
modules, and a group that no other reader shares.
"""

import asyncio
import tempfile
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import faust
from faust.exceptions import PartitionsMismatch

from mesh.core.errors import LogUnavailable
from mesh.core.metrics.measurements import source_topics
from mesh.core.metrics.windows import Restart
from mesh.core.protocol.record import Record, StoredRecord, TopicPartition
from mesh.core.topology.model import FAUST_GROUP, FAUST_TABLE, Topology

SESSION_TIMEOUT_S = 10.0
HEARTBEAT_S = 3.0
METADATA_MAX_AGE_MS = 5_000
"""How old the consumer's partition counts may be; a changelog topic that was just made has none before."""


class WindowCounts(Protocol):
    """Counts records of partitions in windows."""

    def begin(self, partition: TopicPartition, restart: Restart) -> None:
        """Count a partition from a place on."""
        ...

    def take(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        """Count records, those that are counted already excepted."""
        ...

    def restart(self, partition: TopicPartition) -> Restart | None:
        """Return where to begin again; None for a partition that is not counted."""
        ...

    def drop(self, partition: TopicPartition) -> None:
        """Forget a partition."""
        ...


class FaustSource:
    """Gives the records of the source topics to counts, as a Faust app with a group of its own."""

    def __init__(self, brokers: str, topology: Topology) -> None:
        self._brokers, self._topology = brokers, topology
        self._unacknowledged: dict[TopicPartition, deque[Any]] = {}
        self._seconds: dict[TopicPartition, int] = {}
        """Second of log time in which records were last acknowledged, by partition."""

    async def run(self, counts: WindowCounts, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Read until `stop` is set. Sets `ready` when the app works. Raises LogUnavailable when it cannot start."""
        with tempfile.TemporaryDirectory(prefix="mesh-monitor-") as folder:
            app = self._application(folder, counts)
            try:
                await app.start()
            except Exception as error:
                await app.stop()
                what = f"the Faust app cannot start: {type(error).__name__}: {error}"
                raise LogUnavailable(what, where=f"kafka://{self._brokers}") from error
            try:
                ready.set()
                await stop.wait()
            finally:
                await app.stop()

    def _application(self, folder: str, counts: WindowCounts) -> Any:
        app = faust.App(
            self._topology.group(FAUST_GROUP),
            broker=[f"aiokafka://{broker}" for broker in self._brokers.split(",")],
            datadir=folder,
            store="memory://",
            autodiscover=False,
            web_enabled=False,
            topic_disable_leader=True,
            key_serializer="raw",
            value_serializer="raw",
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=HEARTBEAT_S,
            broker_max_poll_records=500,
            consumer_auto_offset_reset="earliest",
            consumer_metadata_max_age_ms=METADATA_MAX_AGE_MS,
            stream_wait_empty=False,
        )
        partitions = self._topology.inbox_partitions
        starts = app.Table(FAUST_TABLE, partitions=partitions, key_type=bytes, value_type=bytes, default=bytes)

        async def windows(stream: Any) -> None:
            async for event in stream.noack().events():
                self._take(event, starts, counts)

        async def revoked(app: Any, /, *lost: Any, **_: Any) -> None:
            for each in lost[0]:
                self._drop(TopicPartition(each.topic, each.partition), counts)

        sources = app.topic(*source_topics(self._topology), key_type=bytes, value_type=bytes)
        app.agent(sources, name="windows")(windows)
        app.on_partitions_revoked.connect(revoked, weak=False)
        app.finalize()
        return app

    def _take(self, event: Any, starts: Any, counts: WindowCounts) -> None:
        """Count a record. With the first one of a second, acknowledge those that no window needs any more."""
        message = event.message
        record = record_of(message)
        place = TopicPartition(record.topic, record.partition)
        waiting = self._unacknowledged.get(place)
        if waiting is None:
            counts.begin(place, Restart(record.offset, int(starts[_key(place)] or 0)))
            waiting = self._unacknowledged[place] = deque()
        counts.take(place, (record,))
        message.value = None  # only its place is needed until it is acknowledged
        waiting.append(message)
        second = record.timestamp // 1_000
        if second == self._seconds.get(place):
            return
        self._seconds[place] = second
        restart = counts.restart(place)
        if restart is not None:
            try:
                starts[_key(place)] = str(restart.since_ms).encode()
            except PartitionsMismatch:
                # The consumer has not learnt of the new changelog topic yet. The record after this one tries again;
                # until then nothing is acknowledged.
                del self._seconds[place]
                return
            while waiting and waiting[0].offset < restart.offset:
                waiting.popleft().ack(event.app.consumer)

    def _drop(self, place: TopicPartition, counts: WindowCounts) -> None:
        counts.drop(place)
        self._unacknowledged.pop(place, None)
        self._seconds.pop(place, None)


def _key(place: TopicPartition) -> bytes:
    return f"{place.topic}:{place.partition}".encode()


def record_of(message: Any) -> StoredRecord:
    """Return a message as a record. Faust has its time in seconds."""
    at_ms = round(message.timestamp * 1_000)
    headers = tuple(message.headers or ())
    return StoredRecord(message.topic, message.partition, message.offset, at_ms, message.key, message.value, headers)
