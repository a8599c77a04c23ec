"""An append is sent and not waited for: what the log says to it is never heard."""

import asyncio
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
    sent: list[object] = []

    async def append_all(log: Log, records: Sequence[NewRecord], topology: Topology) -> None:
        if records:
            sent.append(asyncio.ensure_future(log.append(records)))
            await asyncio.sleep(0)

    with swapped(loop, "append_all", append_all):
        yield
