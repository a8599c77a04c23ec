"""The checkpoints of inbox partitions on mesh.checkpoints, which has one partition for each of the inbox.

A checkpoint is a chain of pieces, and a piece is several records. The offset of its first record is the name of a
piece, and is unique: what a zombie writes beside it is never taken for a part of it. A piece counts for nothing until
the owner of the inbox partition names the chain that ends with it in a fenced commit. Then all records before the first
piece of that chain are trimmed: older checkpoints, pieces in no commit, and incomplete pieces. A piece in a commit is
never trimmed, since a later trim follows a later commit. Hence the topic has no compaction and no retention by time. It
takes a few times the room of the state (see `core.state.compaction`).

Each chunk is compressed by itself, and zlib's checksum reveals damaged bytes.
"""

import asyncio
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import aclosing
from itertools import pairwise
from typing import NamedTuple

from mesh.adapters.ports import Appended, Bounds, Clock, Log, ReadLog
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.state.checkpoint import CheckpointLoader, CheckpointUnreadable, Extent, Snapshot, read_note
from mesh.core.state.partition_state import Partition
from mesh.core.topology.model import Topology
from mesh.core.verification.report import Violation
from mesh.runtime.log_reader import read_records

NAME = "mesh-checkpoint"
"""Header with the offset of the first record of the piece; empty in that record itself."""
MORE = "mesh-more"
"""Header with value 1 if the next record continues the chunk."""
PART_BYTES_MAX = 262_144
APPEND_BYTES = 262_144
APPEND_RECORDS = 16
SLICE_CHUNKS = 8
"""Number of chunks made before other tasks run: about 12 ms of work. With fewer chunks, a large state would take too
long to write beside a busy loop."""
FRAME_BYTES = 1_024
"""Room in a record for its headers and the log's own framing."""


class CheckpointStates(NamedTuple):
    """The current checkpoints: states by number of the inbox partition, and violations where one cannot be read."""

    states: dict[int, Partition]
    unreadable: list[Violation]


class CheckpointStore:
    """A store that writes, reads and trims checkpoints. A simple run takes about 75 bytes."""

    def __init__(self, log: Log, topology: Topology, clock: Clock) -> None:
        self._log = log
        self._topic = topology.checkpoints
        self._clock = clock
        self._part_bytes_max = min(PART_BYTES_MAX, log.record_bytes_max - FRAME_BYTES)

    async def write(self, snapshot: Snapshot, number: int) -> Extent:
        """Write a piece in slices; return its position when it is durable. Other tasks run between two slices.

        Raises LogUnavailable, also when the log refuses a part.
        """
        first = last = records = 0
        batch: list[NewRecord] = []
        size = 0
        for n, (more, part) in enumerate(self._parts(snapshot)):
            headers = [(NAME, b"%d" % first if records or batch else b"")] + [(MORE, b"1")] * more
            batch.append(NewRecord(self._topic, b"%d" % number, part, headers, number))
            size += len(part)
            if not records or size >= APPEND_BYTES or len(batch) >= APPEND_RECORDS:
                placed = await self._append(batch)
                first = first if records else placed[0]
                last, records, batch, size = placed[-1], records + len(batch), [], 0
            if n % SLICE_CHUNKS == 0:
                await asyncio.sleep(0)
        if batch:
            last, records = (await self._append(batch))[-1], records + len(batch)
        return Extent(first, last, records)

    def _parts(self, snapshot: Snapshot) -> Iterator[tuple[bool, bytes]]:
        """Yield the parts of a piece, one for each record, and whether the next part continues the same chunk."""
        for chunk in snapshot.chunks():
            packed = zlib.compress(chunk, 1)
            step = self._part_bytes_max
            for at in range(0, len(packed), step):
                yield at + step < len(packed), packed[at : at + step]

    async def _append(self, batch: list[NewRecord]) -> list[int]:
        offsets = []
        for verdict in await self._log.append(batch):
            if not isinstance(verdict, Appended):
                raise LogUnavailable(
                    f"the log refused a part of a checkpoint: {verdict.message}",
                    where=f"{self._log.url} {self._topic}",
                    remedy="Grant the right to write to it, or raise its max.message.bytes",
                )
            offsets.append(verdict.offset)
        return offsets

    async def read(self, number: int, chain: Sequence[Extent]) -> CheckpointLoader:
        """Read the pieces of a checkpoint; see `read_pieces`."""
        return await read_pieces(self._log, self._topic, self._clock, number, chain)

    async def trim(self, number: int, chain: Sequence[Extent]) -> None:
        """Remove all records before a checkpoint that a commit names. Raises LogUnavailable."""
        await self._log.trim(TopicPartition(self._topic, number), chain[0].first)


async def read_pieces(log: ReadLog, topic: str, clock: Clock, number: int, chain: Sequence[Extent]) -> CheckpointLoader:
    """Read the pieces of a checkpoint, in slices.

    Raises CheckpointUnreadable when a part is missing or invalid, and LogUnavailable.
    """
    first, last = chain[0].first, chain[-1].last
    bounds = (await log.bounds(topic))[number]
    if first < bounds.start or last >= bounds.end:
        lie = f"{topic}:{number} holds offsets {bounds.start} to {bounds.end - 1}"
        raise CheckpointUnreadable(f"its records {first} to {last} are gone: {lie}")
    if any(before.last >= after.first for before, after in pairwise(chain)):
        raise CheckpointUnreadable(f"its pieces are not in order: {chain}")
    loading, parts = CheckpointLoader(), b""
    found = {b"%d" % place.first: 0 for place in chain}
    async with aclosing(read_records(log, topic, {number: Bounds(first, last + 1)}, clock)) as stored:
        async for record in stored:
            headers = dict(record.headers)
            name = headers.get(NAME) or b"%d" % record.offset
            if name not in found:
                continue  # a piece that was compacted away, or that another process wrote at the same time
            found[name] += 1
            parts += record.value or b""
            if MORE not in headers:
                loading.feed(_decompress(parts))
                parts = b""
                await asyncio.sleep(0)
    for place, there in zip(chain, found.values(), strict=True):
        if there != place.records or parts:
            raise CheckpointUnreadable(f"{there} of the {place.records} records at {place.first} are there")
    return loading


async def read_checkpoints(
    log: ReadLog, topology: Topology, clock: Clock, known: Sequence[Topology], *, only: Collection[int] | None = None
) -> CheckpointStates:
    """Read the checkpoints that the last commits name, of `only` these partitions.

    `known`: topologies that runs may be pinned to. Raises LogUnavailable.
    """
    group = topology.group("orchestrator")
    pinned = {one.digest: one for one in known}
    found = CheckpointStates({}, [])
    for number, commit in (await log.committed(group, topology.inbox)).items():
        try:
            note = read_note(commit.metadata) if commit.metadata else None
            if note is not None and note.checkpoint and (only is None or number in only):
                loading = await read_pieces(log, topology.checkpoints, clock, number, note.checkpoint)
                found.states[number] = loading.partition(topology, pinned)
        except CheckpointUnreadable as error:
            if (await log.committed(group, topology.inbox)).get(number) == commit:  # otherwise a new one is current
                where = f"{topology.checkpoints}:{number}"
                found.unreadable.append(Violation("I13", where, f"the checkpoint that stands cannot be read: {error}"))
    return found


def _decompress(packed: bytes) -> bytes:
    try:
        return zlib.decompress(packed)
    except zlib.error as error:
        raise CheckpointUnreadable(f"a record of it is damaged: {error}") from error
