"""A record that the log refuses is dropped, and its neighbours are committed around it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mesh.adapters.ports import Log
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.model import Topology
from mesh.runtime import loop
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""

    async def append_all(log: Log, records: Sequence[NewRecord], topology: Topology) -> None:
        if records:
            await log.append(records)

    with swapped(loop, "append_all", append_all):
        yield
