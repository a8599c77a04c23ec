"""A checkpoint forgets the inputs that joins have got."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.core.state.checkpoint import CheckpointLoader
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real: Any = CheckpointLoader.partition

    def partition(self: Any, *given: Any) -> Any:
        state = real(self, *given)
        for run in state.runs.values():
            run.joins = {}
        return state

    with swapped(CheckpointLoader, "partition", partition):
        yield
