"""A retry timer fires before its time, and the early one counts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.core.run import decide
from mesh.core.state.timers import Timers
from tests.sim.planted.patching import swapped

EARLY_MS = 25


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real_due: Any = decide._due
    real_timers: Any = Timers.due

    def _due(run: Any, event: Any, *given: Any) -> None:
        event.at_ms += EARLY_MS
        try:
            real_due(run, event, *given)
        finally:
            event.at_ms -= EARLY_MS

    def due(self: Timers, now_ms: int, *given: Any) -> Any:
        return real_timers(self, now_ms + EARLY_MS, *given)

    with swapped(decide, "_due", _due), swapped(Timers, "due", due):
        yield
