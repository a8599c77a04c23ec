"""An owner opens runs under its own topology, whatever the inbox says, and says nothing of it there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.adapters.ports import Commit
from mesh.core.protocol.record import TopicPartition
from mesh.core.state.partition_state import Partition
from mesh.runtime.checkpoint_manager import CheckpointManager
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real: Any = CheckpointManager.restore

    async def restore(self: Any, partition: TopicPartition, commit: Commit | None) -> tuple[Partition, int]:
        state, place = await real(self, partition, commit)
        state.adopt(self._topology)
        return state, place

    async def adopt(self: Any, partition: TopicPartition) -> None:
        """Do nothing."""

    with swapped(CheckpointManager, "restore", restore), swapped(CheckpointManager, "adopt", adopt):
        yield
