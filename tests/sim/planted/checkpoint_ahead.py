"""A checkpoint is named as soon as it is written, before what its records led to is acknowledged."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesh.adapters.ports import Commit
from mesh.runtime.loop import Loop
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real: Any = Loop._commit_of

    def _commit_of(self: Any, partition: Any, place: int) -> Commit:
        kept = None if self._metadata is None else self._metadata._kept.get(partition)
        if kept is not None and kept.next is not None and kept.next.offset > place:
            return Commit(kept.next.offset, kept.next.text())
        commit: Commit = real(self, partition, place)
        return commit

    with swapped(Loop, "_commit_of", _commit_of):
        yield
