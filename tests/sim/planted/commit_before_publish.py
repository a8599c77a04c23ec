"""The place is committed when the records were folded, not when what follows from them is acknowledged."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.runtime.loop import Loop
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real = Loop._append

    async def _append(
        self: Any, out: Sequence[NewRecord], places: Mapping[TopicPartition, tuple[object | None, int]], before: Any
    ) -> None:
        for tp, (token, place) in places.items():
            if self._is_live(tp, token):
                self._offsets[tp] = place
                self._uncommitted[tp] = None
        self._acknowledged.set()
        await real(self, out, places, before)

    with swapped(Loop, "_append", _append):
        yield
