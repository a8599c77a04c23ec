"""The log on Apache Kafka for readers: neither producer, group nor creation of topics.

The rights Read and Describe on the topics suffice. With Describe on the mesh's groups, their commits can be read, too.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import TypeVar

from aiokafka.errors import GroupAuthorizationFailedError

from mesh.adapters.clock import SystemClock
from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.kafka import codes, undecodable
from mesh.adapters.kafka.connection import Connection
from mesh.adapters.kafka.member import KafkaMember
from mesh.adapters.kafka.reader import KafkaReader
from mesh.adapters.kafka.topics import Topics
from mesh.adapters.log_time import LogTime
from mesh.adapters.ports import Bounds, Commit
from mesh.core.errors import ConfigInvalid, LogUnavailable, NotFound
from mesh.core.health.log_rules import ClusterFacts
from mesh.core.protocol.record import RECORD_BYTES_MAX, TopicPartition

T = TypeVar("T", KafkaMember, KafkaReader)
_log = diagnostics("kafka")


class KafkaReadLog:
    """`ReadLog` on the brokers at `bootstrap` (`host:port,host:port`). Use from one event loop."""

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str,
        security: Mapping[str, str] = MappingProxyType({}),
        request_timeout_ms: int = 10_000,
        record_bytes_max: int = RECORD_BYTES_MAX,
    ) -> None:
        """`security` has aiokafka's names (`security_protocol`, `sasl_mechanism`, `ssl_cafile`, …).

        Raises ConfigInvalid for an unknown or contradictory setting.
        """
        if not __debug__:
            raise ConfigInvalid(
                "Kafka cannot be used with python -O",
                got="assertions that are switched off, by which aiokafka checks its own state",
                remedy="Run without -O and without PYTHONOPTIMIZE",
            )
        codes.install()
        undecodable.install()
        self._connection = Connection(
            bootstrap, client_id=client_id, security=security, request_timeout_ms=request_timeout_ms
        )
        self._record_bytes_max = record_bytes_max
        self._time = LogTime(SystemClock())
        self._topics: Topics | None = None
        self._open: list[KafkaMember | KafkaReader] = []

    @property
    def url(self) -> str:
        """See `Log.url`."""
        return self._connection.url

    async def start(self) -> None:
        """See `Log.start`. Raises LogUnavailable with the result for each address."""
        if self._topics is not None:
            return
        topics = Topics(self._connection)
        try:
            await topics.start()
        except BaseException:
            await topics.close(1_000)
            raise
        self._topics = topics

    async def close(self) -> None:
        """See `Log.close`. Closes readers that were left open as well."""
        topics, self._topics = self._topics, None
        left_open, self._open = self._open, []
        await asyncio.gather(*(one.close() for one in left_open))
        if topics is not None:
            await topics.close(1_000)

    def _admin(self) -> Topics:
        """Return the administrative client. Raises LogUnavailable before `start`."""
        if self._topics is None:
            raise LogUnavailable("the log is not open", where=self.url, remedy="Call start first")
        return self._topics

    async def topics(self) -> Mapping[str, int]:
        """See `Log.topics`. Kafka's internal topics are left out."""
        described = await self._admin().describe()
        return {name: len(topic.leaders) for name, topic in sorted(described.items()) if not topic.internal}

    def now_ms(self) -> int:
        """See `Log.now_ms`: the clock of the brokers, estimated from their acknowledgements."""
        return self._time.now_ms()

    @property
    def knows_time(self) -> bool:
        """See `Log.knows_time`."""
        return self._time.known

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        """See `Log.bounds`."""
        return await self._admin().bounds(topic)

    async def offsets_at(self, topic: str, at_ms: int) -> Mapping[int, int]:
        """See `Log.offsets_at`. Raises NotFound for an unknown topic."""
        return await self._admin().offsets_at(topic, at_ms)

    async def facts(self, names: Collection[str]) -> ClusterFacts:
        """Return what the brokers say of these topics: replicas and settings. Raises LogUnavailable."""
        return await self._admin().facts(names)

    async def committed(self, group: str, topic: str) -> Mapping[int, Commit]:
        """See `Log.committed`. Raises NotFound for an unknown topic.

        Without the right to describe the group there is no commit, and a warning names what it takes.
        """
        try:
            return await self._commits(group, topic)
        except LogUnavailable as error:
            if not isinstance(error.__cause__, GroupAuthorizationFailedError):
                raise
            _log.warning("the commits of a group may not be read", group=group, remedy=error.remedy)
            return {}

    async def _commits(self, group: str, topic: str) -> Mapping[int, Commit]:
        count = (await self._partitions([topic]))[topic]
        partitions = [TopicPartition(topic, partition) for partition in range(count)]
        stored = await self._admin().committed(group, partitions)
        return {tp.partition: commit for tp, commit in sorted(stored.items())}

    def reader(self, positions: Mapping[TopicPartition, int]) -> KafkaReader:
        """See `Log.reader`."""
        reader = KafkaReader(self._connection, self._admin(), positions, record_bytes_max=self._record_bytes_max)
        return self._tracked(reader)

    async def _partitions(self, names: Sequence[str]) -> dict[str, int]:
        """Return the partition counts of these topics. Raises NotFound, naming all that are missing."""
        described = await self._admin().describe(names)
        missing = [name for name in names if not described[name].leaders]
        if missing:
            raise NotFound(f"there is no topic {', '.join(missing)}", where=self.url, remedy="Create it first")
        return {name: len(described[name].leaders) for name in names}

    def _tracked(self, one: T) -> T:
        self._open = [other for other in self._open if not other.closed]
        self._open.append(one)
        return one
