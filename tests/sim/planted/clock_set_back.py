"""When the log's clock is set back, time falls, so what waits waits until that clock has caught up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.core.state.partition_state import Partition
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""

    def set_back(self: Any, _: Any, timestamp: int) -> None:
        self.at_ms = timestamp

    with swapped(Partition, "_set_back", set_back):
        yield
