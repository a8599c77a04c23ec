"""The intake hashes the whole id of a run, and not its home, to find the partition of a request."""

from collections.abc import Iterator
from contextlib import contextmanager

from mesh.core.protocol.event import Event
from mesh.core.protocol.partitioner import murmur2
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.model import Topology
from mesh.services import intake
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    place = intake.__dict__
    real = place["inbox_record"]

    def inbox_record(event: Event, topology: Topology) -> NewRecord:
        record: NewRecord = real(event, topology)
        hashed = murmur2(event.run_id.encode()) & 0x7FFFFFFF
        return record._replace(partition=hashed % topology.inbox_partitions)

    with swapped(intake, "inbox_record", inbox_record):
        yield
