"""Workers compare the deadline of a run with their own wall clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.services.worker.attempt import Caller
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real: Any = Caller.__init__

    def init(self: Any, environment: Any, *given: Any, **named: Any) -> None:
        real(self, environment, *given, **named)
        self._log_ms = environment.clock.now_ms

    with swapped(Caller, "__init__", init):
        yield
