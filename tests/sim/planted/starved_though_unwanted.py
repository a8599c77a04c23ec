"""A join whose condition is false already is named as starved."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.core import decide
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    place: Any = decide
    real = place.starved

    def starved(name: str, slots: Any, needs: Any, _: Any) -> list[str]:
        found: list[str] = real(name, slots, needs)
        return found

    with swapped(decide, "starved", starved):
        yield
