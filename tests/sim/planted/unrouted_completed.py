"""An event that nothing took is not remembered, so its run may end completed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from mesh.core.run import routing
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    with ExitStack() as exits:
        for name in ("note_untaken", "note_declined"):
            exits.enter_context(swapped(routing, name, lambda *_: None))
        yield
