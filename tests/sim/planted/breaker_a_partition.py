"""A worker calls an agent whose breaker is open: only the partitions of the inbox count, each for itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from mesh.services.worker.breaker_gate import Answer, BreakerGate
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""

    def around(gate: BreakerGate, answer: Answer) -> Answer:
        return answer

    with swapped(BreakerGate, "around", around):
        yield
