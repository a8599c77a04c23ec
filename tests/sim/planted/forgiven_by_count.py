"""Each redrive that takes no failure back takes a refusal back, whichever it is."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mesh.core.publishing import effect_records
from mesh.core.run import decide
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    place: Any = decide
    real = place.redriven_refusals

    def redriven_refusals(run: Any) -> frozenset[int]:
        named = real(run)
        return frozenset(range(1, 1 + len(run.trouble.redrives))) if named else named

    with ExitStack() as exits:
        for module in (decide, effect_records):
            exits.enter_context(swapped(module, "redriven_refusals", redriven_refusals))
        yield
