"""The board's values at a moment of the past. Pure.

    past = MemoryPast(since_ms)
    for value in values_in_order: past.take(value)
    past.at("risk/eu", at_ms)      # the value that the key had then; None: none

The times are those of one clock: the log's for records of mesh.board, the file's for the embedded board.
"""

from bisect import bisect_right
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple, Protocol

from mesh.core.board.changelog import counter_of, incarnation_of


class PastValue(NamedTuple):
    """A value that a key had from `at_ms` on. `value` None: it was deleted."""

    key: str
    value: bytes | None
    version: str
    at_ms: int
    by: str = ""


class PastBoard(Protocol):
    """What `MemoryPast` does, wherever the values are."""

    def take(self, value: PastValue) -> None:
        """See MemoryPast."""

    def at(self, key: str, at_ms: int, *, but: Container[str] = ()) -> PastValue | None:
        """See MemoryPast."""

    def values(self, at_ms: int, *, but: Container[str] = ()) -> Sequence[PastValue]:
        """See MemoryPast."""

    def history(self, key: str, at_ms: int, *, but: Container[str] = ()) -> Sequence[PastValue]:
        """See MemoryPast."""


class MemoryPast:
    """The values of all keys from `since_ms` on, with the newest one from before for each. Earlier ones are dropped."""

    def __init__(self, since_ms: int = 0) -> None:
        self._since_ms = since_ms
        self._past: dict[str, list[PastValue]] = {}

    def take(self, value: PastValue) -> None:
        """Add a value, in the order of times. One that an older version brings late is dropped."""
        past = self._past.setdefault(value.key, [])
        if past and is_older(value.version, past[-1].version):
            return
        if past and value.at_ms < self._since_ms:
            past.clear()
        past.append(value)

    def at(self, key: str, at_ms: int, *, but: Container[str] = ()) -> PastValue | None:
        """Return the value that a key had at a time in milliseconds; None if it had none. `but`: writers whose writes
        do not count, since they may be of the same millisecond."""
        found = next(iter(self._up_to(key, at_ms, but)), None)
        return None if found is None or found.value is None else found

    def values(self, at_ms: int, *, but: Container[str] = ()) -> Sequence[PastValue]:
        """Return the values of all keys that had one at this time, sorted by key."""
        found = (self.at(key, at_ms, but=but) for key in sorted(self._past))
        return [value for value in found if value is not None]

    def history(self, key: str, at_ms: int, *, but: Container[str] = ()) -> Sequence[PastValue]:
        """Return the known values of a key up to this time, the newest first."""
        return list(self._up_to(key, at_ms, but))

    def _up_to(self, key: str, at_ms: int, but: Container[str]) -> Iterator[PastValue]:
        past = self._past.get(key, ())
        for place in range(bisect_right(past, at_ms, key=lambda value: value.at_ms), 0, -1):
            if past[place - 1].by not in but:
                yield past[place - 1]


def is_older(version: str, standing: str) -> bool:
    """Whether a version came before another one of the same board."""
    return incarnation_of(version) == incarnation_of(standing) and counter_of(version) < counter_of(standing)
