"""The packed form of an event drops its path."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from mesh.core.protocol import codec
from mesh.core.protocol.event import Event
from mesh.core.protocol.packed_form import pack
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""

    def without(event: Event) -> bytes:
        return pack(replace(event, path=()))

    with swapped(codec, "pack", without):
        yield
