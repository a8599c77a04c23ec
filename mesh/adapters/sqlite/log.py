"""The embedded log: topics, partitions and consumer groups in one SQLite file."""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mesh.adapters.ports import SESSION_TIMEOUT_MS, Appended, Clock, Commit, Listener, Refused, TopicSpec
from mesh.adapters.sqlite.groups import roster
from mesh.adapters.sqlite.groups.group import SqliteMember
from mesh.adapters.sqlite.groups.heartbeat import Heartbeat
from mesh.adapters.sqlite.partitions import batch, catalog, retention
from mesh.adapters.sqlite.partitions.batch import StoredBatch
from mesh.adapters.sqlite.partitions.catalog import OFFSET_BITS
from mesh.adapters.sqlite.read_log import StoredTopics
from mesh.adapters.sqlite.storage.file import SqliteFile
from mesh.core.errors import NotFound
from mesh.core.protocol.codec import plain_record
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import RECORD_BYTES_MAX, NewRecord, TopicPartition, record_bytes, too_large_message

_BATCH_BYTES_MAX = 1_048_576
_WRITE_BYTES_MAX = 4 * 1_048_576
_INSERT = "INSERT INTO batches (id, records, at_ms, keys, bodies, shapes, headers) VALUES (?, ?, ?, ?, ?, ?, ?)"


class _PendingBatch(NamedTuple):
    """A batch to be written: its partition, the indexes of its verdicts, and the batch."""

    number: int
    partition: int
    indexes: Sequence[int]
    batch: StoredBatch


class SqliteLog(StoredTopics):
    """`ports.Log` in a SQLite file (`SqliteFile` says what survives what).

    Times are append times, which never fall within a partition. A sweep every `retention_check_ms` applies
    `retention.ms` of the topics. Freed room in the file is used again, and the file shrinks when more than a quarter of
    it is free. Other settings of topics, `cleanup.policy` included, are stored without effect. `plain_headers`: records
    of the mesh in packed form are appended in plain form.
    """

    def __init__(
        self,
        file: str | Path | SqliteFile,
        *,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        append_timeout_ms: int = 10_000,
        record_bytes_max: int = RECORD_BYTES_MAX,
        plain_headers: bool = False,
        retention_check_ms: int = 60_000,
        clock: Clock | None = None,
    ) -> None:
        self.file = file if isinstance(file, SqliteFile) else SqliteFile(file, synchronous=synchronous)
        self._append_timeout_ms = append_timeout_ms
        self._plain_headers = plain_headers
        self._record_bytes_max = record_bytes_max
        self._retention_check_ms = retention_check_ms
        super().__init__(self.file, clock or self.file.clock)
        self._heartbeat = Heartbeat(self.file, self._clock)
        self._members: list[SqliteMember] = []
        self._sweeper: asyncio.Task[None] | None = None
        self._round_robin = 0

    @property
    def record_bytes_max(self) -> int:
        """See `Log.record_bytes_max`."""
        return self._record_bytes_max

    # ------------------------------------------------------------------------------------------------- open, close

    async def start(self) -> None:
        """Open the file, or make it. Raises LogUnavailable, ConfigInvalid for a file of a later version."""
        await self.file.start(catalog.SCHEMA)
        await self.file.agree_on_time(catalog.newest_ms)
        self._sweeper = asyncio.get_running_loop().create_task(
            retention.sweep_often(self.file, self._clock, self._retention_check_ms), name="retention"
        )

    async def close(self) -> None:
        """Close the members, write what waits, release the file. Raises the error of a listener's `revoked`."""
        if self._sweeper is None:
            return
        sweeper, self._sweeper = self._sweeper, None
        sweeper.cancel()
        closing = [member.close() for member in self._members]
        ended = await asyncio.gather(sweeper, *closing, return_exceptions=True)
        self._heartbeat.stop()
        await self.file.close()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    # ------------------------------------------------------------------------------------------------------ topics

    async def create_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        """Create the topics that do not exist; existing ones take the settings of their spec.

        Raises InvalidInput for an invalid spec, before anything is done, and LogUnavailable.
        """
        for spec in specs:
            catalog.check(spec)
        return await self.file.write(
            lambda connection: catalog.create(connection, specs), operation="create topics", wakes=()
        )

    async def stamped_by_producers(self, names: Sequence[str]) -> Sequence[str]:
        """Return no topic: this log stamps every record itself."""
        return ()

    async def trim(self, partition: TopicPartition, before: int) -> None:
        """Remove records before an offset, except those that share a batch with later ones.

        Raises NotFound, LogUnavailable.
        """
        number = self.file.read(lambda connection: self._catalog.number(connection, partition), operation="trim")
        while await retention.remove_some(self.file, number, before):
            pass  # in small steps, so that no process waits long for the lock

    async def idle_groups(self, groups: Sequence[str]) -> Sequence[str]:
        """See `Log.idle_groups`. Raises LogUnavailable."""
        return self.file.read(
            lambda connection: roster.idle(connection, groups, self.file.is_dead), operation="look for members"
        )

    async def commit_idle(self, group: str, commits: Mapping[TopicPartition, Commit]) -> None:
        """See `Log.commit_idle`. Raises Fenced, LogUnavailable, NotFound for an unknown partition."""
        numbers = self.file.read(
            lambda connection: {self._catalog.number(connection, tp): commit for tp, commit in commits.items()}
        )
        await self.file.write(
            lambda connection: roster.commit_idle(connection, group, numbers, self.file.is_dead),
            operation="commit of a group without members",
            wakes=(),
        )

    async def sweep_retention(self) -> int:
        """Remove expired records now; return their number."""
        return await retention.sweep(self.file, self._clock)

    # -------------------------------------------------------------------------------------------------- join

    async def join(
        self, group: str, topics: Sequence[str], listener: Listener, *, session_timeout_ms: int = SESSION_TIMEOUT_MS
    ) -> SqliteMember:
        """Become a member of `group`. Raises NotFound for an unknown topic, LogUnavailable."""
        member = SqliteMember(
            self.file,
            group,
            [self._topic(name) for name in dict.fromkeys(topics)],
            listener,
            session_timeout_ms=session_timeout_ms,
            catalog=self._catalog,
            heartbeat=self._heartbeat,
            clock=self._clock,
        )
        await member.open()
        self._members = [*(m for m in self._members if not m.closed), member]
        return member

    # ------------------------------------------------------------------------------------------------------ append

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        """Append all; see `ports.Log`. Raises LogUnavailable when there is no verdict after `append_timeout_ms`."""
        if self._plain_headers:
            records = [*map(plain_record, records)]
        verdicts: list[Any] = [None] * len(records)
        packed = [
            one
            for (number, partition), indexes in self._sort(records, verdicts).items()
            for at in range(0, len(indexes), batch.RECORDS_MAX)
            for one in self._pack(records, verdicts, number, partition, indexes[at : at + batch.RECORDS_MAX])
        ]
        # All are queued before any is awaited, so that a partition's records keep their order.
        jobs = [(job, self._write(job)) for job in _write_jobs(packed)]
        if len(jobs) > 1:
            await asyncio.wait([answer for _, answer in jobs])
        for job, answer in jobs:
            for one, offset in zip(job, await answer, strict=True):
                offsets = range(offset, offset + len(one.indexes))
                for index, own in zip(one.indexes, offsets, strict=True):
                    verdicts[index] = Appended(one.partition, own)
        return verdicts

    def _sort(self, records: Sequence[NewRecord], verdicts: list[Any]) -> dict[tuple[int, int], list[int]]:
        """Group the records' indexes by (number, partition); set the verdicts of records without a partition."""
        groups: dict[tuple[int, int], list[int]] = {}
        topics = self._catalog.topics
        for index, record in enumerate(records):
            topic = topics.get(record.topic)
            if topic is None:
                try:
                    topic = self._topic(record.topic)
                except NotFound as error:
                    verdicts[index] = Refused("unknown_topic", str(error))
                    continue
            partition = record.partition
            if partition is None:
                if record.key is None:
                    partition = self._round_robin = (self._round_robin + 1) % topic.partitions
                elif type(record.key) is bytes:
                    partition = partition_of(record.key, topic.partitions)
                else:
                    verdicts[index] = Refused("invalid", f"key is {type(record.key).__name__}, expected bytes or None")
                    continue
            elif not 0 <= partition < topic.partitions:
                verdicts[index] = Refused(
                    "invalid", f"topic {topic.name!r} has partitions 0 to {topic.partitions - 1}, got {partition}"
                )
                continue
            place = (topic.first + partition, partition)
            group = groups.get(place)
            if group is None:
                groups[place] = [index]
            else:
                group.append(index)
        return groups

    def _pack(
        self, records: Sequence[NewRecord], verdicts: list[Any], number: int, partition: int, indexes: Sequence[int]
    ) -> list[_PendingBatch]:
        """Pack the records at `indexes`; set the verdicts of those that fit no batch."""
        try:
            packed = batch.encode([records[index] for index in indexes])
        except (TypeError, ValueError, AttributeError) as error:
            if len(indexes) == 1:
                verdicts[indexes[0]] = Refused("invalid", f"key, value or headers are of a wrong type: {error}")
                return []
        else:
            fits = packed.record_bytes_bound <= self._record_bytes_max
            if fits and packed.size_bytes <= _BATCH_BYTES_MAX:
                return [_PendingBatch(number, partition, indexes, packed)]
            if len(indexes) == 1:
                size = record_bytes(records[indexes[0]])
                if size <= self._record_bytes_max:
                    return [_PendingBatch(number, partition, indexes, packed)]
                verdicts[indexes[0]] = Refused("too_large", too_large_message(size, self._record_bytes_max))
                return []
        # A record is invalid, or the batch is too large: halve it until the record at fault is alone.
        half = len(indexes) // 2
        return self._pack(records, verdicts, number, partition, indexes[:half]) + self._pack(
            records, verdicts, number, partition, indexes[half:]
        )

    def _write(self, batches: Sequence[_PendingBatch]) -> asyncio.Future[list[int]]:
        """Write batches in one job; return the offset of the first record of each."""
        numbers = sorted({pending.number for pending in batches})

        def job(connection: sqlite3.Connection) -> list[int]:
            now_ms = self._clock.now_ms()
            ends = catalog.ends(connection, numbers)
            nexts = {number: end.end for number, end in ends.items()}
            rows = []
            offsets = []
            for number, _, _, packed in batches:
                offset = nexts[number]
                rows.append((number << OFFSET_BITS | offset, packed[0], max(now_ms, ends[number].last_ms), *packed[1:]))
                offsets.append(offset)
                nexts[number] = offset + packed.records
            connection.executemany(_INSERT, rows)
            return offsets

        return self.file.write(job, operation="append", timeout_ms=self._append_timeout_ms, wakes=numbers)


def _write_jobs(batches: Sequence[_PendingBatch]) -> list[list[_PendingBatch]]:
    """Group batches in order, with about `_WRITE_BYTES_MAX` bytes in each group."""
    groups: list[list[_PendingBatch]] = []
    size = _WRITE_BYTES_MAX
    for pending in batches:
        if size >= _WRITE_BYTES_MAX:
            groups.append([])
            size = 0
        groups[-1].append(pending)
        size += pending.batch.size_bytes
    return groups
