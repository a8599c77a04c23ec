"""Older checkpoints are removed when the next one is written, before a commit names it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.runtime.checkpoint_manager import CheckpointManager
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real: Any = CheckpointManager._write

    async def _write(self: Any, partition: Any, *given: Any) -> Any:
        note = await real(self, partition, *given)
        self._begin(self._trim(partition.partition, note), "trim too early")  # waited for, it would do more than that
        return note

    with swapped(CheckpointManager, "_write", _write):
        yield
