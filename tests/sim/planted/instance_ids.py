"""Ids of tasks hold the name of the process that made them, so deciding again makes others."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.core.run import routing
from tests.sim.planted.patching import process_name, swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    place: Any = routing
    real = place.derive_id

    def derive_id(*parts: str | int) -> str:
        id: str = real(*parts, process_name())
        return id

    with swapped(routing, "derive_id", derive_id):
        yield
