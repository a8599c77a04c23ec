"""What mesh.topologies says: whose log it is, and every topology under which runs were opened. Pure.

A record is a topology under its digest (`core.pin`). The first one names the mesh to which these topics belong.
"""

from mesh.core.digest import digest_of
from mesh.core.pin import pinned_topology
from mesh.core.record import Record
from mesh.core.topology import Topology


class Kept:
    """The fold of mesh.topologies. Give it the records in order."""

    def __init__(self) -> None:
        self.topologies: dict[str, Topology] = {}
        """By digest, in the order in which they were first kept."""
        self.unreadable: dict[str, str] = {}
        """Digests of topologies that this version cannot read, each with the reason."""
        self.doubtful: set[str] = set()
        """Digests of topologies whose content has another one: forged, or written by a version that counts otherwise.
        The first of such a digest stands until one is read whose content fits."""

    @property
    def owner(self) -> str:
        """Name of the mesh to which the topics belong; "" if nothing readable was kept."""
        return next((topology.name for topology in self.topologies.values()), "")

    def take(self, record: Record) -> None:
        """Fold one record."""
        digest = (record.key or b"").decode("utf-8", "replace")
        if digest in self.topologies and digest not in self.doubtful:
            return
        try:
            found = pinned_topology(record.value or b"", digest)
        except ValueError as error:
            self.unreadable.setdefault(digest, str(error))
            return
        if digest_of(found) == digest:
            self.topologies[digest] = found
            self.doubtful.discard(digest)
        elif digest not in self.topologies:
            self.topologies[digest] = found
            self.doubtful.add(digest)
