"""What mesh.topologies says: whose log it is, and every topology under which runs were opened. Pure.

A record is a topology under its digest (`core.pin`). The first one names the mesh to which these topics belong.
"""

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

    @property
    def owner(self) -> str:
        """Name of the mesh to which the topics belong; "" if nothing readable was kept."""
        return next((topology.name for topology in self.topologies.values()), "")

    def take(self, record: Record) -> None:
        """Fold one record."""
        digest = (record.key or b"").decode("utf-8", "replace")
        if digest in self.topologies:
            return
        try:
            self.topologies[digest] = pinned_topology(record.value or b"", digest)
        except ValueError as error:
            self.unreadable[digest] = str(error)
