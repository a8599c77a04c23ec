"""The one loop of intake and orchestrator: read → step → perform → commit.

    acknowledged by the log  →  offset committed          (never the other way round)

A `Stage` says what a process does with records; the loop owns membership, restore, order and commits. Whatever was
not committed is read again by the next owner and decided again: with the same ids, so nothing happens twice.
A record that the log refuses is replaced by one that says so (`core.publishing.replacement_records`), never dropped.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import REVOKE_MS_MAX, SESSION_TIMEOUT_MS, Commit, Log, Member, Refused
from mesh.core.errors import Fenced, LogUnavailable
from mesh.core.protocol.record import RECORD_BYTES_MIN, NewRecord, Record, TopicPartition
from mesh.core.publishing.replacement_records import replacements
from mesh.core.topology.model import Topology

POLL_WAIT_MS = 100
"""Also how long an idle loop takes to notice that it is to stop: it is part of every hand-over."""
COMMIT_EVERY_MS = 20
APPENDS_MAX = 4
REST_MS_MAX = 5_000
"""How long a process that was asked to stop may write checkpoints."""
_log = diagnostics("loop")


class Stage(Protocol):
    """What one process does with the records of its partitions."""

    async def restore(self, partition: TopicPartition, commit: Commit | None) -> int | None:
        """Make the state as of a committed place (None if there is none) ready. Answers the offset to go on from, None
        for the default. May be cancelled at any await; nothing of the partition is delivered before."""
        ...

    async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
        """Fold records, answer what to append. Without I/O but for a topology that is not known yet."""
        ...

    def drop(self, partition: TopicPartition) -> None:
        """The partition is somebody else's now; forget it. Called also for one whose restore did not end."""
        ...


class Notes(Protocol):
    """What commits say beside the place, and who wants to know that they were stored: see
    `runtime.checkpoint_manager`."""

    def note(self, partition: TopicPartition, place: int) -> str:
        """The metadata of a commit of this place."""
        ...

    def committed(self, partition: TopicPartition, commit: Commit) -> None:
        """It is stored, under the fence of the group."""
        ...

    async def rest(self, partitions: Sequence[TopicPartition], *, within_ms: float, last: bool) -> None:
        """Nothing of these is folded any more, they are about to go; `last`: for good. Returns in time."""
        ...


class Loop:
    """Runs a stage as one member of `group`. The next batches are read and folded while the last ones are being
    appended, at most `APPENDS_MAX` at once, each partition's in order. Places are committed beside that, at most every
    `COMMIT_EVERY_MS`, and only when everything before them is acknowledged.

    Where the topology orders events, an append begins only after the one before it was acknowledged. Else a later one
    might be stored although an earlier one failed, and the next owner would append the earlier one behind it."""

    def __init__(
        self,
        log: Log,
        stage: Stage,
        topology: Topology,
        *,
        group: str,
        topics: Sequence[str],
        notes: Notes | None = None,
        records_max: int = 500,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
    ) -> None:
        self._log = log
        self._stage = stage
        self._topology = topology
        self._group = group
        self._topics = topics
        self._notes = notes
        self._records_max = records_max
        self._session_timeout_ms = session_timeout_ms
        self._ordered = topology.ordered
        self._turn = asyncio.Lock()
        self._live: dict[TopicPartition, object] = {}
        """Restored partitions, each with a token of this assignment."""
        self._restoring: dict[TopicPartition, asyncio.Task[None]] = {}
        self._appending: deque[asyncio.Task[None]] = deque()
        """Appends under way, oldest first."""
        self._places: dict[TopicPartition, int] = {}
        """Where live partitions stand: everything before is acknowledged."""
        self._uncommitted: dict[TopicPartition, None] = {}
        """Those of them of which there is something to commit, in the order in which it came."""
        self._acknowledged = asyncio.Event()
        self._commits = asyncio.Lock()
        self._error: BaseException | None = None
        self._joined: asyncio.Future[Member] | None = None
        self.ready = asyncio.Event()
        """Set once every assigned partition is live, at least once."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set. Raises what made going on impossible; the caller decides about a restart."""
        self._joined = asyncio.get_running_loop().create_future()
        member = await self._log.join(self._group, self._topics, self, session_timeout_ms=self._session_timeout_ms)
        self._joined.set_result(member)
        commits = asyncio.get_running_loop().create_task(self._commit_often(member), name=f"commits {self._group}")
        commits.add_done_callback(self._ended)
        try:
            while not stop.is_set():
                await self._turn_over(await member.poll(records_max=self._records_max, wait_ms=POLL_WAIT_MS))
            await self._rest(member)
        finally:
            for task in (commits, *self._restoring.values()):
                task.cancel()
            try:
                await member.close()
            finally:
                for append in self._appending:
                    append.cancel()

    async def _rest(self, member: Member) -> None:
        """Stopped: let the appends end, then leave checkpoints behind while the partitions are still ours."""
        try:
            async with asyncio.timeout(REST_MS_MAX / 1000):
                async with self._turn:
                    await self._appended(0)
                if self._notes is not None:  # without the turn: what is revoked meanwhile must not wait for it
                    await self._notes.rest(list(self._live), within_ms=REST_MS_MAX * 0.8, last=True)
                    await self._commit(member)
        except TimeoutError:
            _log.warning("stopped in the middle: the next owner does the rest", group=self._group, after_ms=REST_MS_MAX)

    async def _turn_over(self, batches: Mapping[TopicPartition, Sequence[Record]]) -> None:
        """Fold one batch and begin to append what follows from it."""
        if self._error is not None:
            raise self._error
        tokens = {tp: self._live.get(tp) for tp in batches}
        async with self._turn:
            mine = {tp: records for tp, records in batches.items() if self._is_live(tp, tokens[tp])}
            if not mine:
                return
            out: list[NewRecord] = []
            for tp, records in mine.items():
                out.extend(await self._stage.step(tp, records))
            await self._appended(APPENDS_MAX - 1)
            places = {tp: (tokens[tp], records[-1].offset + 1) for tp, records in mine.items()}
            before = self._appending[-1] if self._appending else None
            append = asyncio.get_running_loop().create_task(self._append(out, places, before))
            append.add_done_callback(self._ended)
            self._appending.append(append)

    async def _append(
        self,
        out: Sequence[NewRecord],
        places: Mapping[TopicPartition, tuple[object | None, int]],
        before: asyncio.Task[None] | None,
    ) -> None:
        if before is not None and self._ordered:
            await before
        await append_all(self._log, out, self._topology)
        if before is not None:
            await before  # what failed there must not be committed around
        for tp, (token, place) in places.items():
            if self._is_live(tp, token):
                self._places[tp] = place
                self._uncommitted[tp] = None
        self._acknowledged.set()

    async def _appended(self, left_max: int) -> None:
        """Wait until at most `left_max` appends are under way. Raises why one failed."""
        while self._appending and (len(self._appending) > left_max or self._appending[0].done()):
            first = self._appending[0]
            if not first.done():
                await asyncio.wait((first,))  # not awaited itself: who gives up waiting must not end the append
            first.result()
            self._appending.popleft()

    async def _commit_often(self, member: Member) -> None:
        while True:
            await self._acknowledged.wait()
            self._acknowledged.clear()
            await self._commit(member)
            await asyncio.sleep(COMMIT_EVERY_MS / 1000)

    def recommit(self, partition: TopicPartition) -> None:
        """Commit the place of a partition once more, since there is something new to say with it."""
        if partition in self._places:
            self._uncommitted[partition] = None
            self._acknowledged.set()

    def watch(self, task: asyncio.Task[None]) -> None:
        """End the loop with what this task raises."""
        task.add_done_callback(self._ended)

    async def _commit(self, member: Member) -> None:
        async with self._commits:
            places = {tp: self._noted(tp, self._places[tp]) for tp in self._uncommitted}
            self._uncommitted.clear()
            try:
                await member.commit(places)
            except Fenced as fenced:
                # Whoever owns them now decides these records again, with the same ids. If we still do, so do we.
                _log.info("commit came too late", group=self._group, reason=str(fenced))
                ours = [tp for tp in places if tp in member.assignment]
                for tp in places:
                    self._forget(tp)
                member.pause(*ours)
                self.assigned(ours)
            else:
                self._stored(places)

    def _noted(self, partition: TopicPartition, place: int) -> Commit:
        return Commit(place, "" if self._notes is None else self._notes.note(partition, place))

    def _stored(self, commits: Mapping[TopicPartition, Commit]) -> None:
        if self._notes is not None:
            for tp, commit in commits.items():
                self._notes.committed(tp, commit)

    def _is_live(self, partition: TopicPartition, token: object | None) -> bool:
        return token is not None and self._live.get(partition) is token

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Listener: restore each in a task of its own, then let records come."""
        for tp in partitions:
            self._forget(tp)
            task = asyncio.get_running_loop().create_task(self._restore(tp), name=f"restore {tp.topic}/{tp.partition}")
            task.add_done_callback(self._ended)
            self._restoring[tp] = task
        if not partitions:
            self.ready.set()

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Listener: let the appends under way end, commit once more, then forget."""
        async with self._turn:
            await self._appended(0)
            if self._notes is not None:
                await self._notes.rest(partitions, within_ms=REVOKE_MS_MAX / 2, last=False)
            if self._joined is not None and self._joined.done():
                await self._commit(self._joined.result())
            for tp in partitions:
                self._forget(tp)
        if self._live and not self._restoring:  # the last restore under way was one of these
            self.ready.set()

    def _forget(self, partition: TopicPartition) -> None:
        self._live.pop(partition, None)
        self._places.pop(partition, None)
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
        if start is None and commit is not None:  # the stage does not mind: where the group stands
            start = commit.offset
        if start is None:
            start = (await self._log.bounds(partition.topic))[partition.partition].start
        try:
            if self._notes is not None and (told := self._noted(partition, start)) != commit:
                await member.commit({partition: told})
                self._stored({partition: told})
            self._restoring.pop(partition)
            member.seek(partition, start)
            member.resume(partition)
        except Fenced:
            self._restoring.pop(partition, None)
            self._stage.drop(partition)  # lost while it was restored; `assigned` will come for what is ours then
        else:
            self._live[partition] = object()
            self._places[partition] = start
        if not self._restoring:
            self.ready.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()


async def append_all(log: Log, records: Sequence[NewRecord], topology: Topology) -> None:
    """Append everything; a record that the log refuses is replaced by one that says so. Returns when all is durable.

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
    """Append a replacement of each refused record; answers the next ones of those that are too large, too."""
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
