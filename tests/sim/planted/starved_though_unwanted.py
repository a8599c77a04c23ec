"""A join whose condition is false already is named as starved."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.core.run import unrouted
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    place: Any = unrouted
    real = place.find_starved

    def find_starved(name: str, slots: Any, needs: Any, _: Any) -> Any:
        return real(name, slots, needs)

    with swapped(unrouted, "find_starved", find_starved):
        yield
