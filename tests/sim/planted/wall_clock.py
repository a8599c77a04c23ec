"""Decisions take the time from the process, not from the log."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mesh.core.protocol.event import Event
from mesh.core.run.effects import Effect
from mesh.core.state.partition_state import Partition
from tests.sim.loop import NODE
from tests.sim.planted.patching import swapped
from tests.sim.world import EPOCH_MS, Host


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real = Partition.apply

    def apply(self: Partition, event: Event, offset: int) -> list[Effect]:
        host = NODE.get()
        if isinstance(host, Host):
            at_ms = EPOCH_MS + int(host.context.run(_now_s) * 1000) + host.skew_ms
            event = replace(event, at_ms=at_ms)
        return real(self, event, offset)

    with swapped(Partition, "apply", apply):
        yield


def _now_s() -> float:
    import asyncio

    return asyncio.get_running_loop().time()
