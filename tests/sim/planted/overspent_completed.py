"""A run that used more than its budget ends as if it had not."""

from collections.abc import Iterator
from contextlib import contextmanager

from mesh.core.run import decide
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    with swapped(decide, "find_overspent", lambda *_: ()):
        yield
