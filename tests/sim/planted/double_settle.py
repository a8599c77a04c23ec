"""The usage of an attempt is charged twice when it succeeds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.core.run import decide
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    place: Any = decide
    real = place.charge

    def charge(run: Any, spec: Any, usage: Any, limits: Any) -> Any:
        found = real(run, spec, usage, limits)
        if usage is not None:
            run.tokens += usage.tokens
        return found

    with swapped(place, "charge", charge):
        yield
