"""The checkpoints of inbox partitions: restores from them, writes the next, and supplies the metadata that names them.

A partition is live again after load + fold of the tail. So a new piece of the checkpoint is written when folding the
tail costs more than loading the state. The piece holds what changed since the piece before (`core.state.compaction`)
and is written in slices beside the work. The next commit whose offset has reached it names it: state and acknowledged
effects then agree.

On a graceful stop a checkpoint of the last record is written. The next owner then folds nothing, and another version
of the rules finds a boundary. The inbox says under which topology a partition opens runs: an owner with another
topology than the partition's appends an `adopted` record.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Bounds, Clock, Commit, Log
from mesh.core.errors import LogUnavailable, NotRestorable
from mesh.core.protocol.record import TopicPartition
from mesh.core.publishing.effect_records import adopted_record
from mesh.core.state.checkpoint import CheckpointNewer, CheckpointUnreadable, CommitNote, Extent, Snapshot, read_note
from mesh.core.state.compaction import Piece, extend_chain
from mesh.core.state.partition_state import RULES, Partition, TopologyMissing
from mesh.core.topology.model import Topology
from mesh.runtime.checkpoint_store import CheckpointStore
from mesh.runtime.log_reader import read_batches
from mesh.runtime.loop import append_all
from mesh.runtime.topology_store import TopologyStore

_log = diagnostics("checkpoints")

REVOKED_S_MAX: Final = 60.0
"""Longest time that the state of a revoked partition is kept. On Kafka each rebalance revokes all partitions of all
members."""
AGED_CHECKPOINT_INTERVAL_MS: Final = 600_000
"""Well below the shortest retention of an inbox, `units.RETENTION_MS_MIN`."""


class Costs(NamedTuple):
    """Costs of recovery on an ordinary core in microseconds, measured by bench/recovery.py."""

    record_us: int = 25
    """Time to fold a record of the tail."""
    row_us: int = 3
    """Time to load a run, open or remembered."""
    write_us: int = 12
    """Time to write a run that changed, with the log's share."""
    tail_us_min: int = 500_000
    """Time to fold the shortest tail that is worth a checkpoint during normal work."""


COSTS: Final = Costs()


@dataclass(slots=True)
class _Kept:
    """A live partition. `note` is in the metadata of its commits; `next` is durable and in no commit yet."""

    state: Partition
    note: CommitNote
    pieces: dict[Extent, Piece]
    """The pieces of both checkpoints."""
    next: CommitNote | None = None
    writing: asyncio.Task[None] | None = None
    tried: int = 0
    """Offset of the last attempt to write a checkpoint; 0 after a restore, so that a restored tail counts as well."""
    stored: Commit | None = None
    """The last commit of this process."""

    @property
    def latest(self) -> CommitNote:
        """The checkpoint on which the next one builds."""
        return self.next or self.note

    def matches(self, commit: Commit) -> bool:
        """Whether the state is exactly that of this commit."""
        return self.stored == commit == Commit(self.state.offset, self.note.text())

    def touched(self, since: int) -> list[str]:
        """Return the runs that changed at this offset or later."""
        return [id for id, at in (self.state.touched or {}).items() if at >= since]


class _Draft(NamedTuple):
    """A piece to be written, and the pieces of the chain that stay before it."""

    stays: Sequence[Piece]
    snapshot: Snapshot


class CheckpointManager:
    """Manages the checkpoints of the partitions of one orchestrator, and the metadata of its commits.

    Use it from one event loop. `recommit` commits the offset of a partition again, `watch` raises the error of a
    background task.
    """

    def __init__(
        self,
        log: Log,
        topology: Topology,
        clock: Clock,
        *,
        recommit: Callable[[TopicPartition], None],
        watch: Callable[[asyncio.Task[None]], None],
        costs: Costs = COSTS,
    ) -> None:
        self._log = log
        self._topology = topology
        self._clock = clock
        self._recommit, self._watch = recommit, watch
        self._costs = costs
        self._checkpoints = CheckpointStore(log, topology, clock)
        self._topologies = TopologyStore(log, topology, clock)
        self._kept: dict[TopicPartition, _Kept] = {}
        self._revoked: dict[TopicPartition, _Kept] = {}
        """States of revoked partitions. Most of them are assigned again at the end of the rebalance."""
        self._tasks: dict[asyncio.Task[None], None] = {}

    async def start(self) -> None:
        """Store the topology of this process. Raises LogUnavailable, NotFound without the topics."""
        await self._topologies.keep()

    async def close(self) -> None:
        """Cancel the writing of checkpoints."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # `watch` has reported their errors

    # -------------------------------------------------------------------------------------------------------- restore

    async def restore(self, partition: TopicPartition, commit: Commit | None) -> tuple[Partition, int]:
        """Return the state as of a commit, and the offset to go on from. May be cancelled; runs in slices.

        Raises NotRestorable when neither checkpoint nor inbox suffices, LogUnavailable.
        """
        revoked = self._revoked.pop(partition, None)
        if revoked is not None and commit is not None and revoked.matches(commit):
            # No other process has committed since: a fold of the same records would make the same state.
            self._kept[partition] = _Kept(revoked.state, revoked.note, revoked.pieces, stored=commit)
            return revoked.state, commit.offset
        start = (await self._log.bounds(partition.topic))[partition.partition].start
        if commit is None or (not commit.metadata and commit.offset <= start):
            # The group never committed here, or was reset to the beginning: all is decided (again).
            state = self._fresh(partition, self._topologies.first(), start)
            self._kept[partition] = _Kept(state, CommitNote(state.topology.digest, start), {})
            if state.topology.digest != self._topology.digest:
                await self.adopt(partition)
            return state, start
        pieces: dict[Extent, Piece] = {}
        try:
            note = read_note(commit.metadata)
            state = await self._exact(partition, note, commit.offset, start, pieces)
        except CheckpointNewer as error:
            raise NotRestorable(
                f"a newer version of the mesh worked here: {error}",
                where=f"{self._log.url} {partition.topic}:{partition.partition}",
                remedy="Start that version, or a later one",
            ) from error
        except CheckpointUnreadable as error:
            note, pieces = None, {}
            state = await self._whole(partition, commit.offset, start, str(error))
        if commit.offset < start:
            _log.error("records were removed before they were read", partition=partition.partition, lost_until=start)
        state.offset = place = max(commit.offset, start)
        boundary = note is None or note.rules != RULES
        self._kept[partition] = kept = _Kept(state, note or CommitNote(self._topology.digest, place), pieces)
        if not boundary:
            kept.stored = commit
        else:
            # What follows is decided by other rules than the tail was: no process may fold both together.
            await self._write(partition, kept)
        if boundary or state.topology.digest != self._topology.digest:
            await self.adopt(partition)
        return state, place

    async def adopt(self, partition: TopicPartition) -> None:
        """Make the partition open runs under the topology of this process, from the end of the inbox on.

        Raises LogUnavailable.
        """
        record = adopted_record(self._topology.digest, partition.partition, self._clock.now_ms(), self._topology)
        await append_all(self._log, [record], self._topology)

    async def supply_topology(self, state: Partition, missing: TopologyMissing) -> None:
        """As `TopologyStore.supply_topology`."""
        await self._topologies.supply_topology(state, missing)

    async def _exact(
        self, partition: TopicPartition, note: CommitNote, place: int, start: int, pieces: dict[Extent, Piece]
    ) -> Partition:
        """Restore from the checkpoint that the note names, and put its pieces into `pieces`.

        Raises CheckpointUnreadable, NotRestorable, LogUnavailable.
        """
        if note.offset > place:
            raise CheckpointUnreadable(f"it stands for offset {note.offset}, beyond the committed {place}")
        tail = note.offset < place
        if tail and note.offset < start:
            raise CheckpointUnreadable(f"it ends at offset {note.offset}, and the inbox begins at {start}")
        if tail and note.rules != RULES:
            raise NotRestorable(
                f"records {note.offset} to {place - 1} were decided by rules {note.rules}, these are {RULES}",
                where=f"{self._log.url} {partition.topic}:{partition.partition}",
                remedy="Start the version that ran last and stop it with SIGTERM: it writes a checkpoint as it goes",
            )
        number = partition.partition
        topology = (await self._topologies.find([note.topology]))[note.topology]
        if not note.checkpoint:
            state = self._fresh(partition, topology, note.offset)
        else:
            loading = await self._checkpoints.read(number, note.checkpoint)
            pinned = await self._topologies.find(loading.digests)
            state = self._add_topologies(loading.partition(topology, pinned))
            state.touched = {}
            found = zip(note.checkpoint, loading.pieces, strict=True)
            pieces.update((place, Piece(place, rows, ids)) for place, (rows, ids) in found)
        await self._fold(partition, state, note.offset, place)
        return state

    async def _whole(self, partition: TopicPartition, place: int, start: int, why: str) -> Partition:
        """Fold all records, the first of which must still be there. Raises NotRestorable, LogUnavailable."""
        where = f"{self._log.url} {partition.topic}:{partition.partition}"
        if start > 0:
            raise NotRestorable(
                f"there is no checkpoint to begin from ({why}), and the first {start} records are removed",
                where=where,
                remedy=f"Commit offset {start} for the group without metadata: what is left is then decided again",
            )
        sentence = "no checkpoint to begin from: the whole inbox is folded"
        _log.warning(sentence, partition=partition.partition, records=place, reason=why)
        state = self._fresh(partition, self._topologies.first(), start)
        await self._fold(partition, state, start, place)
        return state

    def _fresh(self, partition: TopicPartition, topology: Topology, offset: int) -> Partition:
        state = Partition(topology, number=partition.partition, partitions=topology.inbox_partitions)
        state.offset, state.touched = offset, {}
        return self._add_topologies(state)

    def _add_topologies(self, state: Partition) -> Partition:
        """Add the topology of this process and the times at which topologies were stored; return the state."""
        state.topologies.setdefault(self._topology.digest, self._topology)
        self._topologies.date(state)
        return state

    async def _fold(self, partition: TopicPartition, state: Partition, start: int, end: int) -> None:
        """Fold records without their effects, which were acknowledged before the commit."""
        bounds = {partition.partition: Bounds(start, end)}
        async with aclosing(read_batches(self._log, partition.topic, bounds, self._clock)) as batches:
            async for records in batches:
                for record in records:
                    try:
                        state.step(record)
                    except TopologyMissing as missing:
                        await self.supply_topology(state, missing)
                        state.step(record)

    # --------------------------------------------------------------------------------------------------------- naming

    def metadata(self, partition: TopicPartition, offset: int) -> str:
        """Return the metadata for a commit: it names the latest durable checkpoint that is not beyond the offset."""
        kept = self._kept[partition]
        return (kept.next if kept.next is not None and kept.next.offset <= offset else kept.note).text()

    def committed(self, partition: TopicPartition, commit: Commit) -> None:
        """Note that a commit was stored: its checkpoint counts from now on, and what lies before it is removed."""
        kept = self._kept.get(partition)
        if kept is None:
            return
        kept.stored = commit
        if kept.next is None or commit.metadata != kept.next.text():
            return
        kept.note, kept.next = kept.next, None
        kept.pieces = {place: kept.pieces[place] for place in kept.note.checkpoint}
        kept.state.touched = {id: at for id, at in (kept.state.touched or {}).items() if at >= kept.note.offset}
        self._begin(self._trim(partition.partition, kept.note), f"trim {partition.partition}")

    async def _trim(self, number: int, note: CommitNote) -> None:
        try:
            await self._checkpoints.trim(number, note.checkpoint)
        except LogUnavailable as error:  # the next one trims more
            _log.warning("old checkpoints stay for now", partition=number, reason=str(error))

    # -------------------------------------------------------------------------------------------------------- writing

    def folded(self, partition: TopicPartition) -> None:
        """Begin to write a checkpoint after records were folded, if it saves more time than it costs."""
        kept = self._kept[partition]
        if kept.writing is not None:
            return
        tail_us = (kept.state.offset - max(kept.tried, kept.note.offset)) * self._costs.record_us
        load_us = (len(kept.state.runs) + len(kept.state.ended)) * self._costs.row_us
        if tail_us >= max(load_us, self._costs.tail_us_min):
            self._begin_writing(partition, kept)

    def _begin_writing(self, partition: TopicPartition, kept: _Kept) -> None:
        kept.tried = kept.state.offset
        draft = self._draft(kept)
        kept.writing = self._begin(self._write_beside(partition, kept, draft), f"checkpoint {partition}")

    async def run(self) -> None:
        """Begin a checkpoint every `AGED_CHECKPOINT_INTERVAL_MS` wherever a tail is left, however short. Old records of
        the inbox are removed, and a restore needs the whole tail."""
        while True:
            await self._clock.sleep_ms(AGED_CHECKPOINT_INTERVAL_MS)
            for partition, kept in self._kept.items():
                if kept.writing is None and kept.state.offset > kept.latest.offset:
                    self._begin_writing(partition, kept)

    def _draft(self, kept: _Kept, *, quick: bool = False) -> _Draft:
        """Return the content of the next piece, as of now."""
        state, latest = kept.state, kept.latest
        chain = [kept.pieces[place] for place in latest.checkpoint]
        live = len(state.runs) + len(state.ended)
        stays, ids = extend_chain(chain, kept.touched(latest.offset), live, quick=quick)
        return _Draft(stays, Snapshot(state, ids, latest.offset))

    async def _write_beside(self, partition: TopicPartition, kept: _Kept, draft: _Draft) -> None:
        try:
            await self._write(partition, kept, draft)
        except LogUnavailable as error:  # nothing depends on it: the next attempt comes with the next tail
            _log.warning("no checkpoint could be written", partition=partition.partition, reason=str(error))
        else:
            if self._kept.get(partition) is kept:
                self._recommit(partition)
        finally:
            kept.writing = None

    async def _write(self, partition: TopicPartition, kept: _Kept, draft: _Draft | None = None) -> CommitNote:
        """Write a draft, or what changed until now. The next commit names it. Raises LogUnavailable."""
        began_ms = self._clock.monotonic_ms()
        stays, snapshot = draft or self._draft(kept)
        place = await self._checkpoints.write(snapshot, partition.partition)
        chain = (*stays, Piece(place, snapshot.rows, list(snapshot.ids or ())))
        kept.pieces.update((piece.place, piece) for piece in chain)
        kept.next = CommitNote(snapshot.topology, snapshot.offset, tuple(piece.place for piece in chain))
        _log.info(
            "checkpoint written",
            partition=partition.partition,
            at=snapshot.offset,
            rows=snapshot.rows,
            pieces=len(chain),
            took_ms=round(self._clock.monotonic_ms() - began_ms),
        )
        return kept.next

    async def prepare_release(self, partitions: Sequence[TopicPartition], *, within_ms: float, last: bool) -> None:
        """Write checkpoints of the last record of these partitions, of which no record is folded any more.

        `last`: the process ends, so each partition gets one; otherwise only where it saves the next owner time. Returns
        in time. The next owner folds what is not written by then.
        """
        try:
            async with asyncio.timeout(within_ms / 1000):
                for partition in partitions:
                    await self._write_last(partition, within_ms, last)
        except TimeoutError:
            _log.warning("no checkpoint was written before the end", within_ms=round(within_ms))
        except LogUnavailable as error:
            _log.warning("no checkpoint could be written before the end", reason=str(error))

    async def _write_last(self, partition: TopicPartition, within_ms: float, last: bool) -> None:
        kept = self._kept.get(partition)
        if kept is None or kept.state.offset == kept.latest.offset:
            return
        tail_us = (kept.state.offset - kept.latest.offset) * self._costs.record_us
        write_us = len(kept.state.touched or ()) * self._costs.write_us
        if not last and (tail_us < self._costs.tail_us_min // 4 or write_us > min(tail_us, within_ms * 500)):
            return
        if kept.writing is not None:
            kept.writing.cancel()
        await self._write(partition, kept, self._draft(kept, quick=True))
        self._recommit(partition)

    def drop(self, partition: TopicPartition) -> None:
        """Release a partition. Its state is kept for a while, in case the partition is assigned again unchanged."""
        kept = self._kept.pop(partition, None)
        if kept is None:
            return
        if kept.writing is not None:
            kept.writing.cancel()
        if kept.stored is not None:
            self._revoked[partition] = kept
            asyncio.get_running_loop().call_later(REVOKED_S_MAX, self._discard_revoked, partition, kept)

    def _discard_revoked(self, partition: TopicPartition, revoked: _Kept) -> None:
        if self._revoked.get(partition) is revoked:
            del self._revoked[partition]

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(lambda task: self._tasks.pop(task, None))
        self._watch(task)
        return task
