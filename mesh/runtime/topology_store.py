"""The topologies on mesh.topologies by digest, and the offsets at which inbox partitions adopted which of them.

The topic has one compacted partition and is never emptied. Its first record says to which mesh the topics of this
prefix belong. A process of another mesh refuses to start.
"""

from collections.abc import Collection, Sequence
from contextlib import aclosing, suppress
from typing import Final

from mesh.adapters.clock import SystemClock
from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Appended, Bounds, Clock, Log, ReadLog
from mesh.core.errors import ForeignLog, LogUnavailable, NotRestorable
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import ADOPTED
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.state.checkpoint import CheckpointUnreadable, read_note
from mesh.core.state.partition_state import Partition, TopologyMissing
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.model import OWN_TOPICS, TASKS, Topology
from mesh.core.topology.serialization import pinned_bytes
from mesh.runtime.log_reader import read_records

FORMER_PREFIX: Final = "mesh"
"""The default prefix before the name of the mesh became the default."""
MESHES_SHOWN_MAX: Final = 5
"""Meshes of a log that an error names."""
_log = diagnostics("topologies")


class TopologyStore:
    """The stored topologies of one mesh. `current`: the topology of this process."""

    def __init__(self, log: Log, current: Topology, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._topic = current.topologies
        self._current = current
        self._kept = Registry(current.inbox)
        self._read = 0
        """Offset up to which the topic was read."""

    async def keep(self) -> None:
        """Store the current topology, unless it is stored. Raises ForeignLog, LogUnavailable."""
        await self._follow()
        self._expect_owner()
        if self._current.digest in self._kept.topologies.keys() - self._kept.doubtful:
            return
        record = NewRecord(self._topic, self._current.digest.encode(), pinned_bytes(self._current), (), 0)
        (verdict,) = await self._log.append([record])
        if not isinstance(verdict, Appended):
            raise LogUnavailable(
                f"the log refused the topology: {verdict.message}",
                where=f"{self._log.url} {self._topic}",
                remedy="Grant the right to write to it, or raise its max.message.bytes",
            )
        await self._follow()
        self._expect_owner()  # two meshes may start at once on an empty topic: the first record decides

    async def find(self, digests: Collection[str]) -> dict[str, Topology]:
        """Return topologies by digest. Raises NotRestorable with the digests that are not stored, LogUnavailable."""
        known = {self._current.digest: self._current}
        if not (self._kept.topologies | known).keys() >= set(digests):
            await self._follow()
        known = self._kept.topologies | known
        missing = sorted(set(digests) - known.keys())
        if missing:
            raise NotRestorable(
                f"topology {', '.join(missing)} is not kept, and runs were opened under it",
                where=f"{self._log.url} {self._topic}",
                remedy="Start once with the topics.yaml that has this digest (`mesh check` prints it)",
            )
        return {digest: known[digest] for digest in sorted(digests)}

    def first(self) -> Topology:
        """Return the topology that was stored first: partitions begin with it. Call `keep` before."""
        return next(iter(self._kept.topologies.values()))

    async def supply_topology(self, state: Partition, missing: TopologyMissing) -> None:
        """Give a partition the topology that it misses, or mark that topology as unknown.

        Raises NotRestorable if the state depends on a topology that this version cannot read, LogUnavailable.
        """
        await self._follow()
        if missing.digest in self._kept.topologies:
            state.topologies[missing.digest] = self._kept.topologies[missing.digest]
            self.date(state)
        elif missing.needed and missing.digest in self._kept.unreadable:
            await self.find([missing.digest])
        else:
            state.unknown.add(missing.digest)

    def date(self, state: Partition) -> None:
        """Give a partition the times at which the topologies were stored."""
        state.kept_ms.update(self._kept.since_ms)

    async def newer(self) -> list[Topology]:
        """Return topologies that were stored after the current one, the latest first. Raises LogUnavailable."""
        await self._follow()
        known = list(self._kept.topologies.values())
        digests = list(self._kept.topologies)
        return known[: digests.index(self._current.digest) : -1] if self._current.digest in digests else []

    async def _follow(self) -> None:
        """Read the records since the last read."""
        before, doubtful = set(self._kept.unreadable), set(self._kept.doubtful)
        self._read = await _fold(self._log, self._clock, self._topic, self._kept, self._read)
        for digest in self._kept.unreadable.keys() - before:
            _log.warning("a kept topology cannot be read", digest=digest, reason=self._kept.unreadable[digest])
        for digest in self._kept.doubtful - doubtful:
            _log.warning("a kept topology has another content than its digest says", digest=digest)

    def _expect_owner(self) -> None:
        if self._kept.owner not in ("", self._current.name):
            raise _foreign(self._log, self._current, self._kept.owner)


async def expect_own_log(log: ReadLog, topology: Topology, clock: Clock, *, reads: bool = False) -> None:
    """Raise ForeignLog if this mesh may not use this log under its prefix. Raises LogUnavailable.

    `reads`: the log is only read, so the error says how to read it.

    There are three reasons. The topics of the prefix belong to a mesh of another name. An ingress or egress topic is an
    own topic of another mesh. The mesh has data under the former default prefix and none under its name: then the line
    that keeps using them is missing in topics.yaml.
    """
    there = await log.topics()
    for rule in topology.topics.values():
        other = _mesh_of(rule.name, there)
        if other not in ("", topology.prefix):
            raise ForeignLog(
                f"topic {rule.name!r} is an own topic of the mesh with the prefix {other!r}",
                where=f"{topology.path}:{rule.line}",
                expected="a topic that no mesh uses for itself",
                remedy="Choose another name, or name another log (--log, MESH_LOG)",
            )
    owner = await _owner(log, topology.topologies, clock) if topology.topologies in there else ""
    if owner not in ("", topology.name):
        raise _foreign_to_reader(log, topology, [owner]) if reads else _foreign(log, topology, owner)
    former = f"{FORMER_PREFIX}.topologies"
    if owner or topology.prefix != topology.name or topology.topologies == former or former not in there:
        return
    if await _owner(log, former, clock) == topology.name:
        raise ForeignLog(
            f"the data of mesh {topology.name!r} lie under the prefix {FORMER_PREFIX!r}, which was the default before",
            where=f"{log.url} {former}",
            expected=f"`prefix: {FORMER_PREFIX}` below `mesh:` in {topology.path}",
            got="no prefix, so that of the name",
            remedy=f"Add that line to keep them; to start without them, write a prefix other than {topology.name!r}",
        )


async def missing_mesh(log: ReadLog, topology: Topology, clock: Clock) -> ForeignLog | None:
    """Return the error for a log that holds no topics of this mesh, but those of others; None for every other log.

    Raises LogUnavailable.
    """
    there = await log.topics()
    if topology.inbox in there:
        return None
    kept = sorted(topic for topic in there if topic.endswith(".topologies") and _mesh_of(topic, there))
    owners = [await _owner(log, topic, clock) for topic in kept[:MESHES_SHOWN_MAX]]
    found = [owner for owner in owners if owner]
    return _foreign_to_reader(log, topology, found) if found else None


class TopologyReader:
    """A reader of mesh.topologies for readers of runs. `kept` is empty until the first read."""

    def __init__(self, log: ReadLog, topology: Topology, clock: Clock | None = None) -> None:
        self._log = log
        self._topology = topology
        self._clock = clock or SystemClock()
        self._read: int | None = None
        """Offset up to which the topic was read; None before the first read."""
        self.kept = Registry(topology.inbox)

    async def once(self) -> None:
        """Read the topic, unless it was read before. Raises LogUnavailable."""
        if self._read is None:
            await self._follow()

    async def keep_up(self, record: Record) -> None:
        """Read on if this record of the inbox names an unknown topology or is an unknown adoption."""
        await self.once()
        event = read_event(record)
        if isinstance(event, Unreadable) or not event.topology:
            return
        digest, adopted = event.topology, event.kind == ADOPTED
        there = {era.offset for era in self.kept.eras.get(record.partition, ())} if adopted else ()
        missing = digest not in (self._topology.digest, *self.kept.topologies)
        if missing or (adopted and record.offset not in there):
            await self._follow()

    async def _follow(self) -> None:
        topic = self._topology.topologies
        if self._read is None and topic not in await self._log.topics():
            self._read = 0
            return
        self._read = await _fold(self._log, self._clock, topic, self.kept, self._read or 0)
        if len(self.kept.topologies) > 1:
            group = self._topology.group("orchestrator")
            for number, commit in (await self._log.committed(group, self._topology.inbox)).items():
                with suppress(CheckpointUnreadable):  # the first topology applies then, as in an orchestrator
                    self.kept.current[number] = read_note(commit.metadata).topology


async def read_kept(log: ReadLog, topology: Topology, clock: Clock) -> Registry:
    """Read mesh.topologies; the result is empty if the topic does not exist. Raises LogUnavailable."""
    known = TopologyReader(log, topology, clock)
    await known.once()
    return known.kept


async def _owner(log: ReadLog, topic: str, clock: Clock) -> str:
    kept = Registry("")
    await _fold(log, clock, topic, kept, 0)
    return kept.owner


async def _fold(log: ReadLog, clock: Clock, topic: str, kept: Registry, start: int) -> int:
    """Fold the records from an offset on; return the offset behind the last one."""
    first, end = (await log.bounds(topic))[0]
    async with aclosing(read_records(log, topic, {0: Bounds(max(start, first), end)}, clock)) as stored:
        async for record in stored:
            kept.fold(record)
    return end


def _mesh_of(topic: str, there: Collection[str]) -> str:
    """Return the prefix of the mesh that owns this topic; "" if no mesh owns it."""
    head, _, last = topic.rpartition(".")
    prefix = head if last in OWN_TOPICS else head.removesuffix(f".{TASKS}") if head.endswith(f".{TASKS}") else ""
    return prefix if prefix and f"{prefix}.topologies" in there else ""


def _foreign_to_reader(log: ReadLog, topology: Topology, owners: Sequence[str]) -> ForeignLog:
    names = ", ".join(map(repr, owners))
    return ForeignLog(
        f"this log belongs to mesh {names}",
        where=log.url,
        expected=f"a log of mesh {topology.name!r} with the prefix {topology.prefix!r}, as in {topology.path}",
        got=f"one of mesh {names}",
        remedy="Name the topics.yaml of that mesh (--topology, MESH_TOPOLOGY), or another log (--log, MESH_LOG)",
    )


def _foreign(log: ReadLog, topology: Topology, owner: str) -> ForeignLog:
    return ForeignLog(
        f"the topics with the prefix {topology.prefix!r} belong to mesh {owner!r}",
        where=f"{log.url} {topology.topologies}",
        expected=f"mesh {owner!r}",
        got=f"mesh {topology.name!r} of {topology.path}",
        remedy="Write another `prefix` below `mesh:`, or name another log (--log, MESH_LOG)",
    )
