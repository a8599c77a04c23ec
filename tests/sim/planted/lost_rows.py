"""A piece of a checkpoint that takes in older ones leaves out what only they held."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mesh.core.state.compaction import Piece, extend_chain
from mesh.runtime import checkpoint_manager
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""

    def less(chain: Sequence[Piece], touched: Iterable[str], live: int, **how: Any) -> Any:
        ids = list(touched)
        stays, rows = extend_chain(chain, ids, live, **how)
        return stays, None if rows is None else ids

    with swapped(checkpoint_manager, "extend_chain", less):
        yield
