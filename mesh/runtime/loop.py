"""The read loop of intake and orchestrator: read → step → append → commit.

    acknowledged by the log  →  offset committed          (never the other way round)

A `Stage` says what a process does with records. The loop owns membership, restore, order and commits. The next owner
of a partition reads again what was not committed, and decides it again with the same ids, so nothing happens twice.
A record that the log refuses is replaced by one that says so (`core.publishing.replacement_records`), never dropped.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import REVOKE_MS_MAX, SESSION_TIMEOUT_MS, Commit, Log, Member, Refused
from mesh.core.errors import Fenced, LogUnavailable
from mesh.core.protocol.record import RECORD_BYTES_MIN, NewRecord, Record, TopicPartition
from mesh.core.publishing.replacement_records import replacements
from mesh.core.topology.model import Topology

POLL_WAIT_MS = 100
"""Longest wait of one poll. An idle loop takes that long to notice a stop, hence it is part of every hand-over."""
COMMIT_EVERY_MS = 20
APPENDS_MAX = 4
STOP_MS_MAX = 5_000
"""Time in which a process that was asked to stop may write checkpoints."""
_log = diagnostics("loop")


class Holding(NamedTuple):
    """The partitions that a member of a group works on. `settled`: it has joined and restored all it was assigned."""

    group: str
    partitions: int
    settled: bool


class Stage(Protocol):
    """The work of one process on the records of its partitions."""

    async def restore(self, partition: TopicPartition, commit: Commit | None) -> int | None:
        """Restore the state as of a commit, None if the group never committed.

        Returns the offset to go on from, or None for the default. May be cancelled at any await. No record of
        the partition is delivered before this returns.
        """
        ...

    async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
        """Fold records and return the records to append. Does no I/O, except to look up an unknown topology."""
        ...

    def drop(self, partition: TopicPartition) -> None:
        """Forget a partition that another process owns now. Also called for one whose restore did not end."""
        ...


class CommitMetadata(Protocol):
    """Source of the metadata of commits, notified when they are stored: see `runtime.checkpoint_manager`."""

    def metadata(self, partition: TopicPartition, offset: int) -> str:
        """Return the metadata for a commit of this offset."""
        ...

    def committed(self, partition: TopicPartition, commit: Commit) -> None:
        """Note that a commit was stored, under the fence of the group."""
        ...

    async def prepare_release(self, partitions: Sequence[TopicPartition], *, within_ms: float, last: bool) -> None:
        """Prepare for the loss of partitions of which no record is folded any more. Returns in time.

        `last`: the process is about to end.
        """
        ...


class Loop:
    """Runs a stage as one member of `group`.

    The next batches are read and folded while the last ones are being appended: at most `APPENDS_MAX` appends at once,
    each partition's in order. Commits are made beside that, at most every `COMMIT_EVERY_MS`. An offset is committed
    only when all appends that follow from the records before it are acknowledged.

    If the topology orders events, an append begins only after the one before it was acknowledged. Otherwise a later
    one might be stored although an earlier one failed, and the next owner would append the earlier one behind it.
    """

    def __init__(
        self,
        log: Log,
        stage: Stage,
        topology: Topology,
        *,
        group: str,
        topics: Sequence[str],
        metadata: CommitMetadata | None = None,
        records_max: int = 500,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
    ) -> None:
        self._log = log
        self._stage = stage
        self._topology = topology
        self._group = group
        self._topics = topics
        self._metadata = metadata
        self._records_max = records_max
        self._session_timeout_ms = session_timeout_ms
        self._ordered = topology.ordered
        self._lock = asyncio.Lock()
        """Held while a batch is folded, and while partitions are released."""
        self._live: dict[TopicPartition, object] = {}
        """Restored partitions, each with a token of this assignment."""
        self._restoring: dict[TopicPartition, asyncio.Task[None]] = {}
        self._appending: deque[asyncio.Task[None]] = deque()
        """Appends under way, oldest first."""
        self._offsets: dict[TopicPartition, int] = {}
        """Offsets of live partitions before which everything is acknowledged."""
        self._uncommitted: dict[TopicPartition, None] = {}
        """Partitions with something to commit, in the order in which it came."""
        self._acknowledged = asyncio.Event()
        self._commits = asyncio.Lock()
        self._error: BaseException | None = None
        self._joined: asyncio.Future[Member] | None = None
        self.ready = asyncio.Event()
        """Set once every assigned partition is live, at least once."""

    @property
    def holding(self) -> Holding:
        """The partitions of this member that are live."""
        return Holding(self._group, len(self._live), self.ready.is_set() and not self._restoring)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. Raises the error that made further work impossible; the caller may restart."""
        self._joined = asyncio.get_running_loop().create_future()
        member = await self._log.join(self._group, self._topics, self, session_timeout_ms=self._session_timeout_ms)
        self._joined.set_result(member)
        commits = asyncio.get_running_loop().create_task(self._commit_often(member), name=f"commits {self._group}")
        self.watch(commits)
        try:
            while not stop.is_set():
                await self._process(await member.poll(records_max=self._records_max, wait_ms=POLL_WAIT_MS))
            await self._finish(member)
        finally:
            for task in (commits, *self._restoring.values()):
                task.cancel()
            try:
                await member.close()
            finally:
                for append in self._appending:
                    append.cancel()

    async def _finish(self, member: Member) -> None:
        """Wait for the appends, then write checkpoints while the partitions are still ours."""
        try:
            async with asyncio.timeout(STOP_MS_MAX / 1000):
                async with self._lock:
                    await self._wait_for_appends(0)
                if self._metadata is not None:  # outside the lock: a revocation meanwhile must not wait for it
                    await self._metadata.prepare_release(list(self._live), within_ms=STOP_MS_MAX * 0.8, last=True)
                    await self._commit(member)
        except TimeoutError:
            _log.warning("stopped in the middle: the next owner does the rest", group=self._group, after_ms=STOP_MS_MAX)

    async def _process(self, batches: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """Fold one batch and begin to append the resulting records."""
        if self._error is not None:
            raise self._error
        tokens = {tp: self._live.get(tp) for tp in batches}
        async with self._lock:
            mine = {tp: records for tp, records in batches.items() if self._is_live(tp, tokens[tp])}
            if not mine:
                return
            out: list[NewRecord] = []
            for tp, records in mine.items():
                out.extend(await self._stage.step(tp, records))
            await self._wait_for_appends(APPENDS_MAX - 1)
            offsets = {tp: (tokens[tp], records[-1].offset + 1) for tp, records in mine.items()}
            before = self._appending[-1] if self._appending else None
            append = asyncio.get_running_loop().create_task(self._append(out, offsets, before))
            self.watch(append)
            self._appending.append(append)

    async def _append(
        self,
        out: Sequence[NewRecord],
        offsets: Mapping[TopicPartition, tuple[object | None, int]],
        before: asyncio.Task[None] | None,
    ) -> None:
        if before is not None and self._ordered:
            await before
        await append_all(self._log, out, self._topology)
        if before is not None:
            await before  # nothing may be committed behind an append that failed
        for tp, (token, offset) in offsets.items():
            if self._is_live(tp, token):
                self._offsets[tp] = offset
                self._uncommitted[tp] = None
        self._acknowledged.set()

    async def _wait_for_appends(self, left_max: int) -> None:
        """Wait until at most `left_max` appends are under way. Raises the error of one that failed."""
        while self._appending and (len(self._appending) > left_max or self._appending[0].done()):
            first = self._appending[0]
            if not first.done():
                await asyncio.wait((first,))  # not awaited itself: the append goes on when this wait is cancelled
            first.result()
            self._appending.popleft()

    async def _commit_often(self, member: Member) -> None:
        while True:
            await self._acknowledged.wait()
            self._acknowledged.clear()
            await self._commit(member)
            await asyncio.sleep(COMMIT_EVERY_MS / 1000)

    def recommit(self, partition: TopicPartition) -> None:
        """Commit the offset of a partition again, because its metadata has changed."""
        if partition in self._offsets:
            self._uncommitted[partition] = None
            self._acknowledged.set()

    def watch(self, task: asyncio.Task[None]) -> None:
        """End the loop with the error of this task, if it raises one."""
        task.add_done_callback(self._on_ended)

    async def _commit(self, member: Member) -> None:
        async with self._commits:
            commits = {tp: self._commit_of(tp, self._offsets[tp]) for tp in self._uncommitted}
            self._uncommitted.clear()
            try:
                await member.commit(commits)
            except Fenced as fenced:
                # The present owner decides these records again, with the same ids, even if that is this process.
                _log.info("commit came too late", group=self._group, reason=str(fenced))
                ours = [tp for tp in commits if tp in member.assignment]
                for tp in commits:
                    self._forget(tp)
                member.pause(*ours)
                self.assigned(ours)
            else:
                self._note_stored(commits)

    def _commit_of(self, partition: TopicPartition, offset: int) -> Commit:
        return Commit(offset, "" if self._metadata is None else self._metadata.metadata(partition, offset))

    def _note_stored(self, commits: Mapping[TopicPartition, Commit]) -> None:
        if self._metadata is not None:
            for tp, commit in commits.items():
                self._metadata.committed(tp, commit)

    def _is_live(self, partition: TopicPartition, token: object | None) -> bool:
        return token is not None and self._live.get(partition) is token

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Listener: restore each in a task of its own, then resume its delivery."""
        for tp in partitions:
            self._forget(tp)
            task = asyncio.get_running_loop().create_task(self._restore(tp), name=f"restore {tp.topic}/{tp.partition}")
            self.watch(task)
            self._restoring[tp] = task
        if not partitions:
            self.ready.set()

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Listener: wait for the appends under way, commit once more, then forget the partitions."""
        async with self._lock:
            await self._wait_for_appends(0)
            if self._metadata is not None:
                await self._metadata.prepare_release(partitions, within_ms=REVOKE_MS_MAX / 2, last=False)
            if self._joined is not None and self._joined.done():
                await self._commit(self._joined.result())
            for tp in partitions:
                self._forget(tp)
        if self._live and not self._restoring:  # the last restore under way was one of these
            self.ready.set()

    def _forget(self, partition: TopicPartition) -> None:
        self._live.pop(partition, None)
        self._offsets.pop(partition, None)
        self._uncommitted.pop(partition, None)
        task = self._restoring.pop(partition, None)
        if task is not None:
            task.cancel()
        self._stage.drop(partition)

    async def _restore(self, partition: TopicPartition) -> None:
        assert self._joined is not None  # `run` makes it before it joins
        member = await self._joined
        commit = await member.committed(partition)
        start = await self._stage.restore(partition, commit)
        if start is None and commit is not None:
            start = commit.offset
        if start is None:
            start = (await self._log.bounds(partition.topic))[partition.partition].start
        try:
            if self._metadata is not None and (first := self._commit_of(partition, start)) != commit:
                await member.commit({partition: first})
                self._note_stored({partition: first})
            self._restoring.pop(partition)
            member.seek(partition, start)
            member.resume(partition)
        except Fenced:
            self._restoring.pop(partition, None)
            self._stage.drop(partition)  # lost during the restore; `assigned` is called for what is ours then
        else:
            self._live[partition] = object()
            self._offsets[partition] = start
        if not self._restoring:
            self.ready.set()

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()


async def append_all(log: Log, records: Sequence[NewRecord], topology: Topology) -> None:
    """Append all records, and a replacement for each that the log refuses. Returns when all is durable.

    Raises LogUnavailable when the log does not answer, and when it refuses a replacement for another reason than its
    size.
    """
    if not records:
        return
    verdicts = await log.append(records)
    tried: list[tuple[NewRecord, Iterator[NewRecord]]] = []
    for record, verdict in zip(records, verdicts, strict=True):
        if isinstance(verdict, Refused):
            _log.warning("the log refused a record", topic=record.topic, code=verdict.code, reason=verdict.message)
            ladder = replacements(record, verdict.code, verdict.message, topology, log.record_bytes_max)
            tried.append((next(ladder), ladder))
    while tried:
        tried = await _append_replacements(log, tried)


async def _append_replacements(
    log: Log, tried: Sequence[tuple[NewRecord, Iterator[NewRecord]]]
) -> list[tuple[NewRecord, Iterator[NewRecord]]]:
    """Append one replacement for each refused record. Returns smaller ones for those that are too large as well."""
    again: list[tuple[NewRecord, Iterator[NewRecord]]] = []
    verdicts = await log.append([record for record, _ in tried])
    for (record, ladder), verdict in zip(tried, verdicts, strict=True):
        if isinstance(verdict, Refused):
            smaller = next(ladder, None) if verdict.code == "too_large" else None
            if smaller is None:
                raise LogUnavailable(
                    f"the log refused even the record that replaces a refused one: {verdict.message}",
                    where=f"{log.url} {record.topic}",
                    expected=f"a log that takes records of {RECORD_BYTES_MIN} bytes",
                    remedy="Raise the topic's max.message.bytes or grant the right to write to it",
                )
            again.append((smaller, ladder))
    return again
