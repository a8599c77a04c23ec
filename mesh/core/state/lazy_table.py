"""Values by run id, some of them still the bytes of their row: a run that was loaded lies still until it is asked for.

    runs = Table(read)
    runs.cold["run-1"] = row        # as a checkpoint holds it
    runs.get("run-1")               # read now, and from now on a Run

Most runs wait while few get an event. As bytes they take half the memory, none of the time of
the garbage collector, and go into the next checkpoint as they came. Pure.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Value = TypeVar("Value")


def number(row: bytes) -> int:
    """The number with which every row begins: see `core.state.row_codec`."""
    return int(row[: row.index(b" ")])


class Table(Generic[Value]):
    """Used as a dict, as far as it goes. An id is either `warm` or `cold`; one that was just asked for is not cold."""

    __slots__ = ("_read", "cold", "warm")

    def __init__(self, read: Callable[[bytes], Value]) -> None:
        """`read` makes the value of a row."""
        self._read = read
        self.warm: dict[str, Value] = {}
        self.cold: dict[str, bytes] = {}

    def get(self, id: str) -> Value | None:
        """The value, read now if it was cold; None: there is none. Raises what `read` does."""
        found = self.warm.get(id)
        if found is None and id in self.cold:
            found = self.warm[id] = self._read(self.cold[id])
            del self.cold[id]
        return found

    def raw(self, id: str) -> Value | bytes | None:
        """The value or its row, as it is."""
        found = self.warm.get(id)
        return self.cold.get(id) if found is None else found

    def cool(self, id: str, value: Value, row: bytes) -> None:
        """Keep the row instead, unless there is another value meanwhile."""
        if self.warm.get(id) is value:
            del self.warm[id]
            self.cold[id] = row

    def rows(self) -> dict[str, Value | bytes]:
        """All of them as they are, in a dict of its own."""
        return {**self.warm, **self.cold}

    def discard(self, id: str) -> None:
        """Forget it, if it is there."""
        if self.warm.pop(id, None) is None and self.cold:
            self.cold.pop(id, None)

    def __getitem__(self, id: str) -> Value:
        found = self.get(id)
        if found is None:
            raise KeyError(id)
        return found

    def __setitem__(self, id: str, value: Value) -> None:
        self.warm[id] = value
        if self.cold:
            self.cold.pop(id, None)

    def __contains__(self, id: object) -> bool:
        return id in self.warm or id in self.cold

    def __len__(self) -> int:
        return len(self.warm) + len(self.cold)

    def __iter__(self) -> Iterator[str]:
        return iter([*self.warm, *self.cold])

    def values(self) -> Iterator[Value]:
        """Every value; all are read."""
        return (self[id] for id in self)

    def items(self) -> Iterator[tuple[str, Value]]:
        """Every id with its value; all are read."""
        return ((id, self[id]) for id in self)

    def __eq__(self, other: object) -> bool:
        return dict(self.items()) == (dict(other.items()) if isinstance(other, Table) else other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return repr(dict(self.items()))
