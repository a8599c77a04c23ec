"""Table of values by run id. A value that was loaded stays the bytes of its row until it is used. Pure.

    runs = Table(read)
    runs.cold["run-1"] = row        # as a checkpoint holds it
    runs.get("run-1")               # read now, and from now on a Run

Most runs wait while few get an event. As bytes they take half the memory and no time of the garbage collector, and the
next checkpoint copies them unchanged.
"""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Value = TypeVar("Value")


def number(row: bytes) -> int:
    """Return the number with which every row begins: see `core.state.row_codec`."""
    return int(row[: row.index(b" ")])


class Table(Generic[Value]):
    """Mapping with a part of the methods of dict. An id is `warm` (value) or `cold` (row); a read makes it warm."""

    __slots__ = ("_read", "cold", "warm")

    def __init__(self, read: Callable[[bytes], Value]) -> None:
        """Create an empty table. `read` makes the value of a row."""
        self._read = read
        self.warm: dict[str, Value] = {}
        self.cold: dict[str, bytes] = {}

    def get(self, id: str) -> Value | None:
        """Return the value, reading its row if it was cold; None: there is none. Raises the errors of `read`."""
        found = self.warm.get(id)
        if found is None and id in self.cold:
            found = self.warm[id] = self._read(self.cold[id])
            del self.cold[id]
        return found

    def raw(self, id: str) -> Value | bytes | None:
        """Return the value, or its row if it is cold; None: there is neither."""
        found = self.warm.get(id)
        return self.cold.get(id) if found is None else found

    def encode_idle(self, id: str, value: Value, row: bytes) -> None:
        """Replace the value by its row, unless the table holds another value by now."""
        if self.warm.get(id) is value:
            del self.warm[id]
            self.cold[id] = row

    def rows(self) -> dict[str, Value | bytes]:
        """Return all values and rows in a new dict, without reading the rows."""
        return {**self.warm, **self.cold}

    def discard(self, id: str) -> None:
        """Remove the id, if it is there."""
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
        """Return an iterator over all values. It reads every cold row."""
        return (self[id] for id in self)

    def items(self) -> Iterator[tuple[str, Value]]:
        """Return an iterator over all ids with their values. It reads every cold row."""
        return ((id, self[id]) for id in self)

    def __eq__(self, other: object) -> bool:
        return dict(self.items()) == (dict(other.items()) if isinstance(other, Table) else other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return repr(dict(self.items()))
