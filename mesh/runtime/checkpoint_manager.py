"""Which checkpoint stands for each inbox partition: restores from it, writes the next, and tells commits its name.

A partition is live again after load + fold of the tail, so a new piece of the checkpoint is worth its writing when
folding the tail costs more than loading the state. It holds what was touched since the piece before
(`core.state.compaction`), is written in slices beside the work, and is named by the next commit whose offset has
reached it: state and acknowledged effects then agree. On a graceful stop one is written of the last record, so that the
next owner folds nothing and another version of the rules finds a boundary. Under which topology a partition opens runs
is said in the inbox: an owner that has another one than the partition is at appends an `adopted` record.
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
from mesh.core.state.checkpoint import CheckpointNewer, CheckpointUnreadable, Note, Place, Snapshot, note_of
from mesh.core.state.compaction import Piece, extended
from mesh.core.state.partition_state import RULES, Partition, TopologyMissing
from mesh.core.topology.model import Topology
from mesh.runtime.checkpoint_store import CheckpointStore
from mesh.runtime.log_reader import read_batches
from mesh.runtime.loop import append_all
from mesh.runtime.topology_store import TopologyStore

_log = diagnostics("keeper")

PARKED_S_MAX: Final = 60.0
"""How long the state of a partition that went is kept. On Kafka each rebalance takes all partitions from everybody."""


AGED_EVERY_MS: Final = 600_000
"""Well below the shortest retention of an inbox, `units.RETENTION_MS_MIN`."""


class Costs(NamedTuple):
    """What recovery costs on an ordinary core (bench/recovery.py), in microseconds; and when a checkpoint pays."""

    record_us: int = 25
    """Folding a record of the tail."""
    row_us: int = 3
    """Loading a run, open or remembered."""
    write_us: int = 12
    """Writing one that was touched, and the log's part in it."""
    tail_us_min: int = 500_000
    """A tail that takes less is never worth a checkpoint while the work goes on."""


COSTS: Final = Costs()


@dataclass(slots=True)
class _Kept:
    """A live partition. `note` is what its commits say, `next` a checkpoint that is durable and not named yet."""

    state: Partition
    note: Note
    pieces: dict[Place, Piece]
    """Of which the two of them consist."""
    next: Note | None = None
    writing: asyncio.Task[None] | None = None
    tried: int = 0
    """Offset of the last attempt to write one. A tail that was restored counts: a crash does not lengthen the next."""
    stored: Commit | None = None
    """The last commit of ours."""

    @property
    def latest(self) -> Note:
        """The checkpoint on which the next one builds."""
        return self.next or self.note

    def stands_at(self, commit: Commit) -> bool:
        """Whether this is what a commit of ours says, and nothing was folded since."""
        return self.stored == commit == Commit(self.state.offset, self.note.text())

    def touched(self, since: int) -> list[str]:
        """Runs that changed at this offset or later."""
        return [id for id, at in (self.state.touched or {}).items() if at >= since]


class _Draft(NamedTuple):
    """A piece to be written, and what of the chain stays before it."""

    stays: Sequence[Piece]
    snapshot: Snapshot


class CheckpointManager:
    """Used by the orchestrator; `Loop` asks it what to say in commits. From one event loop."""

    def __init__(self, log: Log, topology: Topology, clock: Clock, *, costs: Costs = COSTS) -> None:
        self._log = log
        self._topology = topology
        self._clock = clock
        self._costs = costs
        self._checkpoints = CheckpointStore(log, topology, clock)
        self._topologies = TopologyStore(log, topology, clock)
        self._kept: dict[TopicPartition, _Kept] = {}
        self._parked: dict[TopicPartition, _Kept] = {}
        """States of partitions that went: most come back when the group has settled."""
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._recommit: Callable[[TopicPartition], None] = lambda _: None
        self._watch: Callable[[asyncio.Task[None]], None] = lambda _: None

    def attach(self, recommit: Callable[[TopicPartition], None], watch: Callable[[asyncio.Task[None]], None]) -> None:
        """`recommit` commits a partition's place once more, `watch` raises what a task of ours raised."""
        self._recommit, self._watch = recommit, watch

    async def start(self) -> None:
        """Keep the topology of this process. Raises LogUnavailable, NotFound without the topics."""
        await self._topologies.keep()

    async def close(self) -> None:
        """End what is still being written."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)  # `watch` has told what they raised

    # -------------------------------------------------------------------------------------------------------- restore

    async def restore(self, partition: TopicPartition, commit: Commit | None) -> tuple[Partition, int]:
        """The state as of a committed place, and the offset to go on from. Interruptible; runs in slices.

        Raises NotRestorable when neither checkpoint nor inbox suffice, LogUnavailable.
        """
        parked = self._parked.pop(partition, None)
        if parked is not None and commit is not None and parked.stands_at(commit):
            # Nobody committed since: another fold of the same records could only make the same state.
            self._kept[partition] = _Kept(parked.state, parked.note, parked.pieces, stored=commit)
            return parked.state, commit.offset
        start = (await self._log.bounds(partition.topic))[partition.partition].start
        if commit is None or (not commit.metadata and commit.offset <= start):
            # Nobody committed here yet, or somebody sent the group back to the beginning: all is decided (again).
            state = self._fresh(partition, self._topologies.first(), start)
            self._kept[partition] = _Kept(state, Note(state.topology.digest, start), {})
            if state.topology.digest != self._topology.digest:
                await self.adopt(partition)
            return state, start
        pieces: dict[Place, Piece] = {}
        try:
            note = note_of(commit.metadata)
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
        self._kept[partition] = kept = _Kept(state, note or Note(self._topology.digest, place), pieces)
        if not boundary:
            kept.stored = commit
        else:
            # What follows is decided otherwise than the tail was: nobody may fold both together.
            await self._write(partition, kept)
        if boundary or state.topology.digest != self._topology.digest:
            await self.adopt(partition)
        return state, place

    async def adopt(self, partition: TopicPartition) -> None:
        """Let the partition open runs under the topology of this process, from the end of the inbox on.

        Raises LogUnavailable.
        """
        record = adopted_record(self._topology.digest, partition.partition, self._clock.now_ms(), self._topology)
        await append_all(self._log, [record], self._topology)

    async def teach(self, state: Partition, missing: TopologyMissing) -> None:
        """As `TopologyStore.teach`."""
        await self._topologies.teach(state, missing)

    async def _exact(
        self, partition: TopicPartition, note: Note, place: int, start: int, pieces: dict[Place, Piece]
    ) -> Partition:
        """From the checkpoint that the note names, whose pieces are put into `pieces`.

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
            state = self._dated(loading.partition(topology, pinned))
            state.touched = {}
            found = zip(note.checkpoint, loading.pieces, strict=True)
            pieces.update((place, Piece(place, rows, ids)) for place, (rows, ids) in found)
        await self._fold(partition, state, note.offset, place)
        return state

    async def _whole(self, partition: TopicPartition, place: int, start: int, why: str) -> Partition:
        """From the first record, which must still be there. Raises NotRestorable, LogUnavailable."""
        where = f"{self._log.url} {partition.topic}:{partition.partition}"
        if start > 0:
            raise NotRestorable(
                f"there is no checkpoint to begin from ({why}), and the first {start} records are removed",
                where=where,
                remedy=f"Commit offset {start} for the group without metadata: what is left is then decided anew",
            )
        _log.warning(
            "no checkpoint to begin from: the whole inbox is folded",
            partition=partition.partition,
            records=place,
            reason=why,
        )
        state = self._fresh(partition, self._topologies.first(), start)
        await self._fold(partition, state, start, place)
        return state

    def _fresh(self, partition: TopicPartition, topology: Topology, offset: int) -> Partition:
        state = Partition(topology, number=partition.partition, partitions=topology.inbox_partitions)
        state.offset, state.touched = offset, {}
        return self._dated(state)

    def _dated(self, state: Partition) -> Partition:
        """The state, which now knows the topology of this process, and when each was kept."""
        state.topologies.setdefault(self._topology.digest, self._topology)
        self._topologies.date(state)
        return state

    async def _fold(self, partition: TopicPartition, state: Partition, start: int, end: int) -> None:
        """Silently: the effects were acknowledged before the commit."""
        bounds = {partition.partition: Bounds(start, end)}
        async with aclosing(read_batches(self._log, partition.topic, bounds, self._clock)) as batches:
            async for records in batches:
                for record in records:
                    try:
                        state.step(record)
                    except TopologyMissing as missing:
                        await self.teach(state, missing)
                        state.step(record)

    # --------------------------------------------------------------------------------------------------------- naming

    def note(self, partition: TopicPartition, place: int) -> str:
        """What a commit of this place says: the latest checkpoint that is durable and not beyond it."""
        kept = self._kept[partition]
        return (kept.next if kept.next is not None and kept.next.offset <= place else kept.note).text()

    def committed(self, partition: TopicPartition, commit: Commit) -> None:
        """A commit was stored. The checkpoint it names stands; what lies before it may go."""
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

    async def _trim(self, number: int, note: Note) -> None:
        try:
            await self._checkpoints.trim(number, note.checkpoint)
        except LogUnavailable as error:  # the next one trims more
            _log.warning("old checkpoints stay for now", partition=number, reason=str(error))

    # -------------------------------------------------------------------------------------------------------- writing

    def folded(self, partition: TopicPartition) -> None:
        """Records of the partition were folded: begin to write a checkpoint, if it pays."""
        kept = self._kept[partition]
        if kept.writing is not None:
            return
        tail_us = (kept.state.offset - max(kept.tried, kept.note.offset)) * self._costs.record_us
        if tail_us >= self._costs.tail_us_min and tail_us >= self._load_us(kept.state):
            self._begin_writing(partition, kept)

    def _begin_writing(self, partition: TopicPartition, kept: _Kept) -> None:
        kept.tried = kept.state.offset
        draft = self._draft(kept)
        kept.writing = self._begin(self._write_beside(partition, kept, draft), f"checkpoint {partition}")

    async def run(self) -> None:
        """Begin a checkpoint every `AGED_EVERY_MS` where a tail is left, however short: records of the inbox are
        removed when they are old, and a restore needs the whole tail."""
        while True:
            await self._clock.sleep_ms(AGED_EVERY_MS)
            for partition, kept in self._kept.items():
                if kept.writing is None and kept.state.offset > kept.latest.offset:
                    self._begin_writing(partition, kept)

    def _load_us(self, state: Partition) -> int:
        return (len(state.runs) + len(state.ended)) * self._costs.row_us

    def _draft(self, kept: _Kept, *, hurry: bool = False) -> _Draft:
        """What the next piece holds, as of now."""
        state, latest = kept.state, kept.latest
        chain = [kept.pieces[place] for place in latest.checkpoint]
        live = len(state.runs) + len(state.ended)
        stays, ids = extended(chain, kept.touched(latest.offset), live, hurry=hurry)
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

    async def _write(self, partition: TopicPartition, kept: _Kept, draft: _Draft | None = None) -> Note:
        """Write what was drafted, or what changed until now: the next to be named. Raises LogUnavailable."""
        began_ms = self._clock.monotonic_ms()
        stays, snapshot = draft or self._draft(kept)
        place = await self._checkpoints.write(snapshot, partition.partition)
        chain = (*stays, Piece(place, snapshot.rows, list(snapshot.ids or ())))
        kept.pieces.update((piece.place, piece) for piece in chain)
        kept.next = Note(snapshot.topology, snapshot.offset, tuple(piece.place for piece in chain))
        _log.info(
            "checkpoint written",
            partition=partition.partition,
            at=snapshot.offset,
            rows=snapshot.rows,
            pieces=len(chain),
            took_ms=round(self._clock.monotonic_ms() - began_ms),
        )
        return kept.next

    async def rest(self, partitions: Sequence[TopicPartition], *, within_ms: float, last: bool) -> None:
        """Nothing is folded any more: leave checkpoints of the last record behind, so that nobody needs to fold a tail.

        `last`: this process ends, so each partition gets one. Otherwise only where it saves the next owner time.
        Returns in time; what was not written then is folded by the next owner.
        """
        try:
            async with asyncio.timeout(within_ms / 1000):
                for partition in partitions:
                    await self._rest(partition, within_ms, last)
        except TimeoutError:
            _log.warning("no checkpoint was written before the end", within_ms=round(within_ms))
        except LogUnavailable as error:
            _log.warning("no checkpoint could be written before the end", reason=str(error))

    async def _rest(self, partition: TopicPartition, within_ms: float, last: bool) -> None:
        kept = self._kept.get(partition)
        if kept is None or kept.state.offset == kept.latest.offset:
            return
        tail_us = (kept.state.offset - kept.latest.offset) * self._costs.record_us
        write_us = len(kept.state.touched or ()) * self._costs.write_us
        if not last and (tail_us < self._costs.tail_us_min // 4 or write_us > min(tail_us, within_ms * 500)):
            return
        if kept.writing is not None:
            kept.writing.cancel()
        await self._write(partition, kept, self._draft(kept, hurry=True))
        self._recommit(partition)

    def drop(self, partition: TopicPartition) -> None:
        """The partition is somebody else's now; its state is kept for a while, in case it comes back untouched."""
        kept = self._kept.pop(partition, None)
        if kept is None:
            return
        if kept.writing is not None:
            kept.writing.cancel()
        if kept.stored is not None:
            self._parked[partition] = kept
            asyncio.get_running_loop().call_later(PARKED_S_MAX, self._leave, partition, kept)

    def _leave(self, partition: TopicPartition, parked: _Kept) -> None:
        if self._parked.get(partition) is parked:
            del self._parked[partition]

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks[task] = None
        task.add_done_callback(lambda task: self._tasks.pop(task, None))
        self._watch(task)
        return task
