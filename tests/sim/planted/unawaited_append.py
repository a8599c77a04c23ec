"""An append is sent and not waited for: what the log says to it is never heard."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mesh.core.record import NewRecord
from mesh.core.topology import Topology
from mesh.wire import loop
from mesh.wire.ports import Log
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
