"""mesh.checkpoints: where the state of inbox partitions is written, one partition there for each of the inbox.

A checkpoint is a chain of pieces, and a piece several records; the offset of the first one is its name, which no other
can have, so that what a zombie writes beside it is never taken for a part of it. A piece counts for nothing until the
owner of the inbox partition names the chain that ends with it in a fenced commit. Then everything before the first
piece of that chain is trimmed away: older checkpoints, pieces that nobody named, and those that were broken off. What
is named is never trimmed, since whoever trims later names a later one: hence no compaction and no retention by time.
The room needed is a few times that of the state (`core.state.compaction` sees to that).

Each chunk is compressed by itself; the checksum that zlib keeps with it is what tells damaged bytes from good ones.
"""

import asyncio
import zlib
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from mesh.adapters.ports import Appended, Bounds, Clock, Log
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.state.checkpoint import CheckpointUnreadable, Loading, Place, Snapshot, note_of
from mesh.core.state.partition_state import Partition
from mesh.core.topology.model import Topology
from mesh.core.verification.report import Violation
from mesh.runtime.log_reader import read_records

NAME = "mesh-checkpoint"
"""Header: offset of the first record of the piece; empty in that one itself."""
MORE = "mesh-more"
"""Header: 1 where the next record goes on with the same chunk."""
PART_BYTES_MAX = 262_144
APPEND_BYTES = 262_144
APPEND_RECORDS = 16
TURN_CHUNKS = 8
"""Made before others run: about 12 ms of work. Fewer, and a busy loop would take too long to write a large state."""
FRAME_BYTES = 1_024
"""Left free in a record for its headers and the log's own framing."""


class CheckpointStates(NamedTuple):
    """Checkpoints that stand: as states, by number of the inbox partition, and those that cannot be read."""

    states: dict[int, Partition]
    unreadable: list[Violation]


class CheckpointStore:
    """Writes, reads and trims checkpoints. Compressed at about 75 bytes a simple run."""

    def __init__(self, log: Log, topology: Topology, clock: Clock) -> None:
        self._log = log
        self._topic = topology.checkpoints
        self._clock = clock
        self._part_bytes_max = min(PART_BYTES_MAX, log.record_bytes_max - FRAME_BYTES)

    async def write(self, snapshot: Snapshot, number: int) -> Place:
        """Write a piece; answers its place when it is durable. In slices, between which others run.

        Raises LogUnavailable, also when the log refuses a part.
        """
        first = last = records = 0
        lot: list[NewRecord] = []
        size = 0
        for n, (more, part) in enumerate(self._parts(snapshot)):
            headers = [(NAME, b"%d" % first if records or lot else b"")] + [(MORE, b"1")] * more
            lot.append(NewRecord(self._topic, b"%d" % number, part, headers, number))
            size += len(part)
            if not records or size >= APPEND_BYTES or len(lot) >= APPEND_RECORDS:
                placed = await self._append(lot)
                first = first if records else placed[0]
                last, records, lot, size = placed[-1], records + len(lot), [], 0
            if n % TURN_CHUNKS == 0:
                await asyncio.sleep(0)
        if lot:
            last, records = (await self._append(lot))[-1], records + len(lot)
        return Place(first, last, records)

    def _parts(self, snapshot: Snapshot) -> Iterator[tuple[bool, bytes]]:
        """What fits a record each; whether the next one belongs to the same chunk."""
        for chunk in snapshot.chunks():
            packed = zlib.compress(chunk, 1)
            step = self._part_bytes_max
            for at in range(0, len(packed), step):
                yield at + step < len(packed), packed[at : at + step]

    async def _append(self, lot: list[NewRecord]) -> list[int]:
        offsets = []
        for verdict in await self._log.append(lot):
            if not isinstance(verdict, Appended):
                raise LogUnavailable(
                    f"the log refused a part of a checkpoint: {verdict.message}",
                    where=f"{self._log.url} {self._topic}",
                    remedy="Grant the right to write to it, or raise its max.message.bytes",
                )
            offsets.append(verdict.offset)
        return offsets

    async def read(self, number: int, chain: Sequence[Place]) -> Loading:
        """Read the pieces of a checkpoint, in slices. Raises CheckpointUnreadable when it is not whole or not
        understood, and LogUnavailable."""
        first, last = chain[0].first, chain[-1].last
        bounds = (await self._log.bounds(self._topic))[number]
        if first < bounds.start or last >= bounds.end:
            lie = f"{self._topic}:{number} holds offsets {bounds.start} to {bounds.end - 1}"
            raise CheckpointUnreadable(f"its records {first} to {last} are gone: {lie}")
        if any(before.last >= after.first for before, after in pairwise(chain)):
            raise CheckpointUnreadable(f"its pieces are not in order: {chain}")
        loading, parts = Loading(), b""
        found = {b"%d" % place.first: 0 for place in chain}
        async for record in read_records(self._log, self._topic, {number: Bounds(first, last + 1)}, self._clock):
            headers = dict(record.headers)
            name = headers.get(NAME) or b"%d" % record.offset
            if name not in found:
                continue  # a piece that was compacted away, or that another process wrote at the same time
            found[name] += 1
            parts += record.value or b""
            if MORE not in headers:
                loading.feed(_unpacked(parts))
                parts = b""
                await asyncio.sleep(0)
        for place, there in zip(chain, found.values(), strict=True):
            if there != place.records or parts:
                raise CheckpointUnreadable(f"{there} of the {place.records} records at {place.first} are there")
        return loading

    async def trim(self, number: int, chain: Sequence[Place]) -> None:
        """Remove what lies before a checkpoint that is named. Raises LogUnavailable."""
        await self._log.trim(TopicPartition(self._topic, number), chain[0].first)


async def read_checkpoints(
    log: Log, topology: Topology, clock: Clock, known: Sequence[Topology], *, only: Collection[int] | None = None
) -> CheckpointStates:
    """The checkpoints that the last commits name, of `only` these partitions. `known`: topologies that runs may pin.
    Raises LogUnavailable."""
    group, checkpoints = topology.group("orchestrator"), CheckpointStore(log, topology, clock)
    pinned = {one.digest: one for one in known}
    standing = CheckpointStates({}, [])
    for number, commit in (await log.committed(group, topology.inbox)).items():
        try:
            note = note_of(commit.metadata) if commit.metadata else None
            if note is not None and note.checkpoint and (only is None or number in only):
                loading = await checkpoints.read(number, note.checkpoint)
                standing.states[number] = loading.partition(topology, pinned)
        except CheckpointUnreadable as error:
            if (await log.committed(group, topology.inbox)).get(number) == commit:  # else another one stands now
                where = f"{topology.checkpoints}:{number}"
                standing.unreadable.append(
                    Violation("I13", where, f"the checkpoint that stands cannot be read: {error}")
                )
    return standing


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompress(packed)
    except zlib.error as error:
        raise CheckpointUnreadable(f"a record of it is damaged: {error}") from error
