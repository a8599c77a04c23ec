"""A task that fails is tried again for as long as its run lives."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mesh.core.run import retry as failure
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real: Any = failure._next_try_ms

    def _next_try_ms(task: Any, event: Any, fault: Any, retry: Any) -> int:
        due_ms: int = real(task, event, fault, replace(retry, attempts_max=1_000))
        return due_ms

    with swapped(failure, "_next_try_ms", _next_try_ms):
        yield
