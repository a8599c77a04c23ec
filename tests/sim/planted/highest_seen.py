"""A worker commits one past the highest record it has taken, not the contiguous finished prefix."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.core.task.offsets import OffsetTracker
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""

    def commit_offset(self: Any) -> int | None:
        highest: int | None = self._next
        return highest

    with swapped(OffsetTracker, "commit_offset", commit_offset):
        yield
