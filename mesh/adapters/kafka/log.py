"""The log on Apache Kafka, through aiokafka 0.14: this folder is the only place that imports it.

Records are appended at least once, acknowledged by all in-sync replicas, without transactions: aiokafka supports only
their old protocol, which commits around lost records. Each workaround for the library says so in a comment.
"""

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mesh.adapters.kafka.appender import Appender
from mesh.adapters.kafka.member import KafkaMember
from mesh.adapters.kafka.read_log import KafkaReadLog
from mesh.adapters.kafka.topics import Topics
from mesh.adapters.ports import SESSION_TIMEOUT_MS, Appended, Commit, Listener, Refused, TopicSpec
from mesh.core.errors import ConfigInvalid, LogUnavailable, NotFound
from mesh.core.protocol.codec import plain_record
from mesh.core.protocol.record import RECORD_BYTES_MAX, NewRecord, TopicPartition

CLOSE_TIMEOUT_MS = 5_000


class KafkaLog(KafkaReadLog):
    """`Log` on the brokers at `bootstrap` (`host:port,host:port`). Use from one event loop."""

    def __init__(
        self,
        bootstrap: str,
        *,
        client_id: str,
        security: Mapping[str, str] = MappingProxyType({}),
        append_timeout_ms: int = 30_000,
        request_timeout_ms: int = 10_000,
        record_bytes_max: int = RECORD_BYTES_MAX,
        plain_headers: bool = False,
    ) -> None:
        """`security` has aiokafka's names (`security_protocol`, `sasl_mechanism`, `ssl_cafile`, …). `plain_headers`:
        records of the mesh in packed form are appended in plain form.

        Raises ConfigInvalid for an unknown or contradictory setting.
        """
        super().__init__(
            bootstrap,
            client_id=client_id,
            security=security,
            request_timeout_ms=request_timeout_ms,
            record_bytes_max=record_bytes_max,
        )
        self._append_timeout_ms = append_timeout_ms
        self._plain_headers = plain_headers
        self._appender: Appender | None = None

    @property
    def record_bytes_max(self) -> int:
        """See `Log.record_bytes_max`."""
        return self._record_bytes_max

    # ---------------------------------------------------------------------------------------------------- start, close

    async def start(self) -> None:
        """See `Log.start`. Raises LogUnavailable with the result for each address."""
        if self._topics is not None:
            return
        topics = Topics(self._connection)
        appender = Appender(
            *(self._connection, topics, self._time),
            timeout_ms=self._append_timeout_ms,
            record_bytes_max=self._record_bytes_max,
        )
        try:
            await topics.start()
            await appender.start()
        except BaseException:
            await appender.close(0)
            await topics.close(1_000)
            raise
        self._topics, self._appender = topics, appender

    async def close(self) -> None:
        """See `Log.close`. Closes members and readers that were left open as well."""
        topics, appender = self._topics, self._appender
        self._topics = self._appender = None
        left_open, self._open = self._open, []
        await asyncio.gather(*(one.close() for one in left_open))
        if appender is not None:
            await appender.close(CLOSE_TIMEOUT_MS)
        if topics is not None:
            await topics.close(1_000)

    def _start_once(self) -> tuple[Topics, Appender]:
        if self._topics is None or self._appender is None:
            raise LogUnavailable("the log is not open", where=self.url, remedy="Call start first")
        return self._topics, self._appender

    # -------------------------------------------------------------------------------------------------------- topics

    async def committed(self, group: str, topic: str) -> Mapping[int, Commit]:
        """See `Log.committed`. Raises NotFound for an unknown topic, LogUnavailable where it may not be read."""
        return await self._commits(group, topic)

    async def create_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """See `Log.create_topics`. Three replicas, of which two must be in sync, where there are three brokers.

        Raises TopicsInvalid, naming everything that the broker refused, and LogUnavailable.
        """
        topics, appender = self._start_once()
        appender.forget({spec.name for spec in specs})
        return await topics.create(specs)

    async def stamped_by_producers(self, names: Sequence[str]) -> Sequence[str]:
        """See `Log.stamped_by_producers`. Topics whose settings this client may not read are left out."""
        topics, _ = self._start_once()
        return await topics.stamped_by_producers(names)

    async def trim(self, partition: TopicPartition, before: int) -> None:
        """See `Log.trim`. The broker deletes a segment when all of it lies before the offset."""
        topics, _ = self._start_once()
        count = (await self._partitions([partition.topic]))[partition.topic]
        if not 0 <= partition.partition < count:
            raise NotFound(
                f"topic {partition.topic!r} has no partition {partition.partition}",
                where=self.url,
                expected=f"0 to {count - 1}",
            )
        await topics.trim(partition, before)

    async def idle_groups(self, groups: Sequence[str]) -> Sequence[str]:
        """See `Log.idle_groups`. A group that this client may not describe is left out."""
        topics, _ = self._start_once()
        return await topics.idle_groups(groups)

    async def commit_idle(self, group: str, commits: Mapping[TopicPartition, Commit]) -> None:
        """See `Log.commit_idle`. Raises Fenced, LogUnavailable."""
        topics, _ = self._start_once()
        await topics.commit_idle(group, commits)

    # ------------------------------------------------------------------------------------------------------- records

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        """See `Log.append`."""
        _, appender = self._start_once()
        return await appender.append([*map(plain_record, records)] if self._plain_headers else records)

    async def join(
        self, group: str, topics: Sequence[str], listener: Listener, *, session_timeout_ms: int = SESSION_TIMEOUT_MS
    ) -> KafkaMember:
        """See `Log.join`.

        Raises NotFound for an unknown topic, for which the library would wait. Raises ConfigInvalid when another
        application is in the group: the mesh would not process the partitions of that application.
        """
        await self._partitions(topics)
        if foreign_members := await self._start_once()[0].foreign_members(group):
            raise ConfigInvalid(
                f"group {group!r} has members that are no part of this mesh",
                where=self.url,
                expected="members of this mesh only",
                got=", ".join(foreign_members[:3]) + (" …" if len(foreign_members) > 3 else ""),
                remedy="Give that application a group.id of its own, or this mesh another `prefix`",
            )
        member = KafkaMember(
            self._connection,
            group,
            topics,
            listener,
            session_timeout_ms=session_timeout_ms,
            record_bytes_max=self._record_bytes_max,
        )
        await member.start()
        return self._tracked(member)
