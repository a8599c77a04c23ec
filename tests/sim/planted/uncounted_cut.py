"""An outcome that was cut does not say how many results it lacks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mesh.core.publishing import replacement_records
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real = replacement_records.shorten_outcome

    def shorten_outcome(body: Mapping[str, Any], why: str, room: int) -> dict[str, Any]:
        return {name: value for name, value in real(body, why, room).items() if name != "results_omitted"}

    with swapped(replacement_records, "shorten_outcome", shorten_outcome):
        yield
