"""A blackboard in memory, for unit tests of one agent function."""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mesh.adapters.ports import ABSENT, ANY, Count, Entry, Limit
from mesh.core.board import rules
from mesh.core.errors import Conflict

T = TypeVar("T")
INCARNATION = "memory"


class MemoryBoard:
    """The operations of `mesh.adapters.ports.Board` that an agent can reach, under the same rules as every store.

    Leases, watching and incarnations are for services and are absent. Raises InvalidInput and Conflict as a store does.
    """

    def __init__(self) -> None:
        self._past: dict[str, list[Entry]] = {}
        """Entries by key, oldest first."""
        self._answers: dict[tuple[str, str], Any] = {}
        """Answers by key and op_id, for operations that a repeated task performs again."""
        self._writes = 0

    async def get(self, key: str) -> Entry | None:
        """Return the current entry of a key, or None."""
        rules.check_key(key)
        return self._newest(key)

    async def put(self, key: str, value: bytes, *, expect: str = ANY, by: str = "", op_id: str = "") -> Entry:
        """Write a value if `expect` is the current version. Raises Conflict."""
        rules.check_key(key)
        rules.check_value(key, value)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))
        found = self._newest(key)
        current = ABSENT if found is None else found.version
        if expect not in (ANY, current):
            raise Conflict(key, expected=expect, current=current)
        return self._write(key, value, by)

    async def append(self, key: str, item: bytes, *, items_max: int, by: str = "", op_id: str = "") -> Entry:
        """Add an item to the list at a key, at most once for an `op_id`."""
        rules.check_key(key)
        text = rules.check_item(key, item, items_max)

        def append() -> Entry:
            found = self._newest(key)
            pushed = rules.pushed(None if found is None else found.value, None, text, items_max)
            if pushed is None:
                raise rules.not_an_array(key)
            if len(pushed[0]) > rules.VALUE_BYTES_MAX:
                raise rules.too_large(key, len(pushed[0]))
            return self._write(key, pushed[0], by)

        return self._once(key, op_id, append)

    async def add(
        self, key: str, amount: int, *, value_max: Limit = None, value_min: Limit = None, by: str = "", op_id: str = ""
    ) -> Count:
        """Add to a counter within its limits, at most once for an `op_id`."""
        rules.check_key(key)
        low, high = rules.check_counter(key, amount, value_min, value_max)

        def add() -> Count:
            found = self._newest(key)
            value = 0 if found is None else rules.counter_of(found.value)
            if value is None:
                raise rules.not_a_counter(key)
            if not low <= value + amount <= high:
                return Count(value, False)
            entry = self._write(key, b"%d" % (value + amount), by)
            return Count(value + amount, True, entry.version, entry.at_ms)

        return self._once(key, op_id, add)

    async def history(self, key: str, *, limit: int = 100) -> Sequence[Entry]:
        """Return past entries of a key, newest first."""
        rules.check_key(key)
        return self._past.get(key, [])[::-1][: rules.check_limit(limit)]

    async def keys(self, pattern: str = "*") -> Sequence[str]:
        """Return the keys that match a glob, sorted."""
        return sorted(filter(rules.glob(pattern), self._past))

    def _newest(self, key: str) -> Entry | None:
        past = self._past.get(key)
        return past[-1] if past else None

    def _write(self, key: str, value: bytes, by: str) -> Entry:
        self._writes += 1
        entry = Entry(key, value, f"{INCARNATION}:{self._writes}", time.time_ns() // 1_000_000, by)
        past = self._past.setdefault(key, [])
        past.append(entry)
        del past[: -rules.HISTORY_MAX]
        return entry

    def _once(self, key: str, op_id: str, operation: Callable[[], T]) -> T:
        if not op_id:
            return operation()
        if (key, op_id) not in self._answers:
            self._answers[key, op_id] = operation()
        answer: T = self._answers[key, op_id]
        return answer
