"""What mesh.topologies says: whose log it is, and under which topology runs were opened. Pure.

A record is a topology under its digest (`core.topology.serialization`), or an *era* under the place of an `adopted`
record of the inbox: from that place on its partition opens runs under the topology that the era names. The first
topology names the mesh to which these topics belong.
"""

from bisect import insort
from typing import TYPE_CHECKING, NamedTuple

import orjson

from mesh.core.protocol.record import NewRecord, Record
from mesh.core.run.effects import Adopt, Effect
from mesh.core.topology.digest import matches_digest
from mesh.core.topology.model import Topology
from mesh.core.topology.serialization import pinned_topology

if TYPE_CHECKING:
    from mesh.core.state.partition_state import Partition


class TopologyMissing(LookupError):
    """A record cannot be folded before the partition knows this topology: put it into `topologies`, or its digest into
    `unknown`, and fold the record again. `needed`: all that follows in the partition depends on it."""

    def __init__(self, digest: str, *, needed: bool) -> None:
        super().__init__(digest)
        self.digest = digest
        self.needed = needed


class Era(NamedTuple):
    """An `adopted` record lies at `offset` of the inbox. `before`, `topology`: the digests up to it and after it."""

    offset: int
    topology: str
    before: str


class Registry:
    """The fold of mesh.topologies. Give it the records in order."""

    def __init__(self, inbox: str) -> None:
        self._inbox = inbox
        self.topologies: dict[str, Topology] = {}
        """By digest, in the order in which they were first kept."""
        self.since_ms: dict[str, int] = {}
        """When each of them was first kept (log time)."""
        self.unreadable: dict[str, str] = {}
        """Keys of records that this version cannot read, each with the reason."""
        self.doubtful: set[str] = set()
        """Digests of topologies whose content has another one: forged, or written by a version that counts otherwise.
        The first of such a digest stands until one is read whose content fits."""
        self.eras: dict[int, list[Era]] = {}
        """By partition of the inbox, in the order of their offsets."""
        self.current: dict[int, str] = {}
        """Digest of the topology that a partition without eras is known to be at; filled from outside."""

    @property
    def owner(self) -> str:
        """Name of the mesh to which the topics belong; "" if nothing readable was kept."""
        return next((topology.name for topology in self.topologies.values()), "")

    def fold(self, record: Record) -> None:
        """Fold one record."""
        key = (record.key or b"").decode("utf-8", "replace")
        if key in self.topologies and key not in self.doubtful:
            return
        try:
            if ":" in key:
                self._take_era(key, record.value or b"")
            else:
                self._take_topology(key, record)
        except (ValueError, KeyError, TypeError) as error:
            self.unreadable.setdefault(key, str(error))

    def _take_topology(self, digest: str, record: Record) -> None:
        found = pinned_topology(record.value or b"", digest)
        if matches_digest(found, digest):
            self.topologies[digest] = found
            self.doubtful.discard(digest)
        elif digest not in self.topologies:
            self.topologies[digest] = found
            self.doubtful.add(digest)
        self.since_ms.setdefault(digest, record.timestamp)

    def _take_era(self, key: str, value: bytes) -> None:
        topic, partition, offset = key.rsplit(":", 2)
        told = orjson.loads(value)
        era = Era(int(offset), str(told["topology"]), str(told["before"]))
        eras = self.eras.setdefault(int(partition), [])
        if topic == self._inbox and era not in eras:
            insort(eras, era)

    def topology_at(self, partition: int, offset: int) -> Topology | None:
        """The topology under which a request at this place of the inbox opens a run; None: it is not known."""
        eras = self.eras.get(partition, ())
        digest = self.current.get(partition) or next(iter(self.topologies), "")
        for era in reversed(eras):
            digest = era.before
            if era.offset < offset:
                digest = era.topology
                break
        return self.topologies.get(digest)

    def covers(self, partition: int) -> bool:
        """Whether a partition opened its first runs under the first topology. Otherwise it changed to another one when
        the inbox did not say so yet: an older version of the mesh worked there."""
        return self.topology_at(partition, -1) is next(iter(self.topologies.values()), None)

    def prepare(self, state: "Partition", offset: int) -> None:
        """Let a partition know all that is kept, and open runs as the inbox does at this offset."""
        state.topologies.update(self.topologies)
        state.kept_ms.update(self.since_ms)
        under = self.topology_at(state.number, offset)
        if under is not None:
            state.adopt(under)


def step(state: "Partition", record: Record) -> list[Effect]:
    """Fold a record of a run; of the topologies that the partition does not know none is to be had."""
    try:
        return state.step(record)
    except TopologyMissing as missing:
        state.unknown.add(missing.digest)
        return state.step(record)


def era_record(adopted: Adopt, topology: Topology) -> NewRecord:
    """The record for mesh.topologies that says where a partition adopted a topology."""
    key = f"{topology.inbox}:{adopted.partition}:{adopted.offset}"
    value = orjson.dumps({"topology": adopted.topology, "before": adopted.before})
    return NewRecord(topology.topologies, key.encode(), value, (), 0)
