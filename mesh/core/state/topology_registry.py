"""Fold of mesh.topologies: the mesh that owns the log, and the topology under which each run was opened. Pure.

A record is a topology with its digest as key (`core.topology.serialization`), or an *era*. The key of an era is the
position of an `adopted` record of the inbox. After that position the partition opens runs under the topology that the
era names. The first topology names the mesh to which these topics belong.
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
    from mesh.core.protocol.codec import Unreadable
    from mesh.core.protocol.event import Event
    from mesh.core.state.partition_state import Partition


class TopologyMissing(LookupError):
    """Error: a record cannot be folded before the partition knows this topology.

    Put the topology into `topologies`, or its digest into `unknown`, and fold the record again. `needed`: all later
    records of the partition depend on it."""

    def __init__(self, digest: str, *, needed: bool) -> None:
        super().__init__(digest)
        self.digest = digest
        self.needed = needed


class Era(NamedTuple):
    """An `adopted` record at `offset` of the inbox. `before`, `topology`: the digests up to it and after it."""

    offset: int
    topology: str
    before: str


class Registry:
    """State of the fold of mesh.topologies. `fold` takes the records in order."""

    def __init__(self, inbox: str) -> None:
        self._inbox = inbox
        self.topologies: dict[str, Topology] = {}
        """Digest → topology, in the order in which they were first stored."""
        self.since_ms: dict[str, int] = {}
        """Digest → log time in ms at which the topology was first stored."""
        self.unreadable: dict[str, str] = {}
        """Key of a record that this version cannot read → the reason."""
        self.doubtful: set[str] = set()
        """Digests that do not match the content of their topology. It was forged, or another version computed the
        digest in another way. The first topology of such a digest counts until one with matching content is read."""
        self.eras: dict[int, list[Era]] = {}
        """Partition of the inbox → its eras, in the order of their offsets."""
        self.current: dict[int, str] = {}
        """Partition → digest of its topology, for a partition without eras; `runtime.topology_store` fills it."""

    @property
    def owner(self) -> str:
        """Return the name of the mesh to which the topics belong; "" if no readable topology was stored."""
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
        stored = orjson.loads(value)
        era = Era(int(offset), str(stored["topology"]), str(stored["before"]))
        eras = self.eras.setdefault(int(partition), [])
        if topic == self._inbox and era not in eras:
            insort(eras, era)

    def topology_at(self, partition: int, offset: int) -> Topology | None:
        """Return the topology under which a request at this offset of the inbox opens a run; None: unknown."""
        eras = self.eras.get(partition, ())
        digest = self.current.get(partition) or next(iter(self.topologies), "")
        for era in reversed(eras):
            digest = era.before
            if era.offset < offset:
                digest = era.topology
                break
        return self.topologies.get(digest)

    def covers(self, partition: int) -> bool:
        """Return whether a partition opened its first runs under the first topology.

        Otherwise it changed to another one without an `adopted` record: an older version of the mesh worked there."""
        return self.topology_at(partition, -1) is next(iter(self.topologies.values()), None)

    def prepare(self, state: "Partition", offset: int) -> None:
        """Give a partition all stored topologies, and let it open runs as the inbox does at this offset."""
        state.topologies.update(self.topologies)
        state.kept_ms.update(self.since_ms)
        under = self.topology_at(state.number, offset)
        if under is not None:
            state.adopt(under)


def step(state: "Partition", record: Record, event: "Event | Unreadable | None" = None) -> list[Effect]:
    """Fold a record when no further topologies are available: a missing one is marked as unknown.

    `event`: what the record holds, if the caller has decoded it."""
    try:
        return state.step(record) if event is None else state.take(event, record)
    except TopologyMissing as missing:
        state.unknown.add(missing.digest)
        return state.step(record)


def era_record(adopted: Adopt, topology: Topology) -> NewRecord:
    """Return the record for mesh.topologies that says where a partition adopted a topology."""
    key = f"{topology.inbox}:{adopted.partition}:{adopted.offset}"
    value = orjson.dumps({"topology": adopted.topology, "before": adopted.before})
    return NewRecord(topology.topologies, key.encode(), value, (), 0)
