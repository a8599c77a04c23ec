"""What a failed attempt used is charged once more when its task succeeds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.core import decide
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    place: Any = decide
    real = place.settle

    def settle(run: Any, spec: Any, usage: Any) -> None:
        real(run, spec, usage)
        if usage is not None:
            run.tokens += usage.tokens

    with swapped(decide, "settle", settle):
        yield
