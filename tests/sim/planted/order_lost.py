"""A loop appends the next batch although the one before is not acknowledged, where events are ordered."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.runtime.loop import Loop
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real = Loop.__init__

    def begin(self: Loop, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        self._ordered = False

    with swapped(Loop, "__init__", begin):
        yield
