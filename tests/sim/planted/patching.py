"""Putting something else in the place of a function, for a while."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from tests.sim.loop import NODE


class Planted(NamedTuple):
    """A bug on purpose. `first` is a seed from which it is found soon; `words` stand in a violation that names it."""

    name: str
    what: str
    words: str
    first: int
    patch: Callable[[], AbstractContextManager[None]]


@contextmanager
def swapped(place: Any, name: str, value: Any) -> Iterator[None]:
    """`place.name` is `value` inside the block."""
    kept = getattr(place, name)
    setattr(place, name, value)
    try:
        yield
    finally:
        setattr(place, name, kept)


def process_name() -> str:
    """The simulated process in which this runs; empty in a checker."""
    node = NODE.get()
    return "" if node is None else node.name
