"""A blackboard in memory: for unit tests of one agent function, and for replays of one task."""

from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar, cast

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import ABSENT, ANY, Board, Count, Entry, Limit
from mesh.core.board import rules
from mesh.core.board.past_values import PastBoard, PastValue
from mesh.core.errors import Conflict
from mesh.core.protocol.event import Event

T = TypeVar("T")
INCARNATION = "memory"


class MemoryBoard:
    """The reads and writes of `mesh.adapters.ports.Board`, under the same rules as every store.

    Leases, watching and incarnations are for services and are absent. Raises InvalidInput and Conflict as a store does.
    """

    def __init__(self) -> None:
        self._past: dict[str, list[Entry]] = {}
        """Entries by key, oldest first; a deletion is an entry of value `null`."""
        self._deleted: set[str] = set()
        self._answers: dict[tuple[str, str], tuple[str, Any]] = {}
        """Kinds of write and answers by key and op_id, for writes that a repeated task performs again."""
        self._writes = 0

    async def get(self, key: str) -> Entry | None:
        """Return the current entry of a key, or None."""
        rules.check_key(key)
        return self._newest(key)

    async def put(self, key: str, value: bytes, *, expect: str = ANY, by: str = "", op_id: str = "") -> Entry:
        """Write a value if `expect` is the current version, at most once for an `op_id`. Raises Conflict."""
        rules.check_write(key, op_id, by)
        rules.check_value(key, value)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))

        def put() -> Entry:
            self._expect(key, expect)
            return self._write(key, value, by)

        return self._once("put", key, op_id, put)

    async def delete(self, key: str, *, expect: str = ANY, by: str = "", op_id: str = "") -> bool:
        """Remove the value; return False if there was none. Raises Conflict."""
        rules.check_write(key, op_id, by)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))

        def delete() -> bool:
            found = self._expect(key, expect)
            if found is not None:
                self._write(key, b"null", by)
                self._deleted.add(key)
            return found is not None

        return self._once("delete", key, op_id, delete)

    async def append(self, key: str, item: bytes, *, items_max: int, by: str = "", op_id: str = "") -> Entry:
        """Add an item to the list at a key, at most once for an `op_id`."""
        rules.check_write(key, op_id, by)
        text = rules.check_item(key, item, items_max)

        def append() -> Entry:
            found = self._newest(key)
            array, _ = rules.pushed(key, None if found is None else found.value, None, text, items_max)
            return self._write(key, array, by)

        return self._once("append", key, op_id, append)

    async def add(
        self, key: str, amount: int, *, value_max: Limit = None, value_min: Limit = None, by: str = "", op_id: str = ""
    ) -> Count:
        """Add to a counter within its limits, at most once for an `op_id`."""
        rules.check_write(key, op_id, by)
        low, high = rules.check_counter(key, amount, value_min, value_max)

        def add() -> Count:
            found = self._newest(key)
            value = rules.counter_of(key, None if found is None else found.value)
            if not low <= value + amount <= high:
                return Count(value, False)
            entry = self._write(key, b"%d" % (value + amount), by)
            return Count(value + amount, True, entry.version, entry.at_ms)

        return self._once("add", key, op_id, add)

    async def history(self, key: str, *, limit: int = 100) -> Sequence[Entry]:
        """Return past entries of a key, newest first."""
        rules.check_key(key)
        return self._past.get(key, [])[::-1][: rules.check_limit(limit)]

    async def keys(self, pattern: str = "*") -> Sequence[str]:
        """Return the keys that match a glob, sorted."""
        return sorted(filter(rules.glob(pattern), self._past.keys() - self._deleted))

    def _newest(self, key: str) -> Entry | None:
        past = self._past.get(key)
        return past[-1] if past and key not in self._deleted else None

    def _expect(self, key: str, expect: str) -> Entry | None:
        """Return the current entry. Raises Conflict if it is of another version."""
        found = self._newest(key)
        current = ABSENT if found is None else found.version
        if expect not in (ANY, current):
            raise Conflict(key, expected=expect, current=current)
        return found

    def _write(self, key: str, value: bytes, by: str) -> Entry:
        self._writes += 1
        entry = Entry(key, value, f"{INCARNATION}:{self._writes}", SystemClock().now_ms(), by)
        past = self._past.setdefault(key, [])
        past.append(entry)
        self._deleted.discard(key)
        del past[: -rules.HISTORY_MAX]
        return entry

    def _once(self, kind: str, key: str, op_id: str, write: Callable[[], T]) -> T:
        """Write, or return the answer of the same write. Raises InvalidInput if the op_id was of another kind."""
        if not op_id:
            return write()
        if (key, op_id) not in self._answers:
            self._answers[key, op_id] = kind, write()
        first, answer = self._answers[key, op_id]
        if first != kind:
            raise rules.op_reused(key, op_id, first)
        if isinstance(answer, Entry) and answer not in self._past[key]:  # as every store answers: see the contract
            newest = self._newest(key)
            answer = answer._replace(value=b"null" if newest is None else newest.value)
        found: T = answer
        return found


class BoardAtMoment(MemoryBoard):
    """The board as it stood at a time in milliseconds, with writes of its own that no other board shows. Writes that
    `but` made then do not count: a replay of its task makes them again."""

    def __init__(self, past: PastBoard, at_ms: int, *, but: Container[str] = ()) -> None:
        super().__init__()
        self._board, self._at_ms, self._but = past, at_ms, but

    async def history(self, key: str, *, limit: int = 100) -> Sequence[Entry]:
        """See MemoryBoard."""
        own = await super().history(key, limit=limit)
        return [*own, *map(_entry, self._board.history(key, self._at_ms, but=self._but))][: rules.check_limit(limit)]

    async def keys(self, pattern: str = "*") -> Sequence[str]:
        """See MemoryBoard."""
        matches = rules.glob(pattern)
        before = {value.key for value in self._board.values(self._at_ms, but=self._but) if matches(value.key)}
        return sorted((before - self._deleted).union(await super().keys(pattern)))

    def _newest(self, key: str) -> Entry | None:
        if key in self._past:
            return super()._newest(key)
        found = self._board.at(key, self._at_ms, but=self._but)
        return None if found is None else _entry(found)


def board_at(past: PastBoard, task: Event) -> Board:
    """Return the board that a task sees when it is replayed: as it stood when its record was stored."""
    return cast(Board, BoardAtMoment(past, task.at_ms, but=(f"{task.agent}/{task.task_id}",)))


def _entry(value: PastValue) -> Entry:
    return Entry(value.key, b"null" if value.value is None else value.value, value.version, value.at_ms, value.by)
