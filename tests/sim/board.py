"""The board as one simulated process sees it: one store for all, which may be silent, forget, or go back in time."""

import asyncio
import copy
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from mesh.adapters.ports import ABSENT, ANY, Completeness, Count, Entry, Limit
from mesh.core.board import rules
from mesh.core.errors import BoardUnavailable, Conflict
from tests.sim.world import Host, World

T = TypeVar("T")
TIMEOUT_MS = 250


class Life(NamedTuple):
    """All that a store holds; put back, it is the store of an earlier time."""

    past: dict[str, list[Entry]]
    """Entries of each key, oldest first."""
    gone: dict[str, bool]
    answers: dict[tuple[str, str], tuple[str, Any]]


class Store:
    """The server. `incarnation` differs after each loss or rollback."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.life = Life({}, {}, {})
        self.leases: dict[str, tuple[bytes, int]] = {}
        self.lives = 1
        self.complete = ""
        """The incarnation that was marked complete."""
        self.counter = 0
        self.silent = False
        self.watchers: list[tuple[deque[Entry], Callable[[], None]]] = []
        self.changes: list[Entry] = []
        """Every write that was acknowledged, whatever became of it."""

    @property
    def incarnation(self) -> str:
        return f"life{self.lives}"

    def require_complete(self, key: str) -> None:
        """Refuse a write that depends on a value which may have been lost."""
        if self.complete != self.incarnation:
            raise rules.incomplete(key, "sim:board")

    def snapshot(self) -> Life:
        """Return the content of a backup."""
        return Life({k: list(v) for k, v in self.life.past.items()}, dict(self.life.gone), dict(self.life.answers))

    def roll_back(self, to: Life) -> None:
        """Come back as it was then (a failover that lost the last writes), or empty."""
        self.life = Life({k: list(v) for k, v in to.past.items()}, dict(to.gone), copy.copy(to.answers))
        self.leases.clear()
        self.lives += 1
        self.world.tell("board", "rolled back", self.incarnation)

    def newest(self, key: str) -> Entry | None:
        """The value that stands, with the version of this life."""
        past = self.life.past.get(key)
        if not past or self.life.gone.get(key):
            return None
        return past[-1]._replace(version=f"{self.incarnation}:{past[-1].version.partition(':')[2]}")

    def write(self, key: str, value: bytes, by: str, *, gone: bool = False) -> Entry:
        self.counter += 1
        entry = Entry(key, value, f"{self.incarnation}:{self.counter}", self.world.now_ms, by)
        past = self.life.past.setdefault(key, [])
        past.append(entry)
        size = sum(len(e.value) for e in past) if len(past) * 64 > rules.HISTORY_MAX or len(value) > 4_096 else 0
        while len(past) > rules.HISTORY_MAX or (size > rules.HISTORY_BYTES_MAX and len(past) > 1):
            size -= len(past.pop(0).value)
        self.life.gone[key] = gone
        self.changes.append(entry)
        self.world.tell("board", key, entry.version, by)
        for queue, wake in self.watchers:
            queue.append(entry)
            wake()
        return entry

    def expected(self, key: str, expect: str) -> Entry | None:
        """The value that stands, if its version is the expected one; else Conflict."""
        found = self.newest(key)
        current = ABSENT if found is None else found.version
        if expect not in (ANY, current):
            raise Conflict(key, expected=expect, current=current)
        return found

    def once(self, kind: str, key: str, op_id: str, do: Callable[[], T]) -> T:
        """Return the first answer to this op_id, or perform the operation."""
        if not op_id:
            return do()
        found = self.life.answers.get((key, op_id))
        if found is not None:
            if found[0] != kind:
                raise rules.op_reused(key, op_id, found[0])
            answer: T = found[1]
            if isinstance(answer, Entry) and answer not in self.life.past.get(key, ()):
                newest = self.newest(key)
                return answer._replace(value=b"null" if newest is None else newest.value)
            return answer
        made = do()
        self.life.answers[(key, op_id)] = (kind, made)
        return made


class SimBoard:
    """See `ports.Board`."""

    def __init__(self, store: Store, host: Host) -> None:
        self._store = store
        self._host = host

    @property
    def url(self) -> str:
        return "sim:board"

    async def start(self) -> None:
        """Do nothing: there is no connection."""

    async def close(self) -> None:
        """Do nothing: there is no resource."""

    async def incarnation(self) -> str:
        return await self._ask(lambda: self._store.incarnation)

    async def completeness(self) -> Completeness:
        return await self._ask(lambda: Completeness(self._store.complete == self._store.incarnation))

    async def mark_complete(self, incarnation: str) -> bool:
        def mark() -> bool:
            if self._store.incarnation == incarnation:
                self._store.complete = incarnation
            return self._store.incarnation == incarnation

        return await self._ask(mark)

    async def get(self, key: str) -> Entry | None:
        rules.check_key(key)
        return await self._ask(lambda: self._store.newest(key))

    async def put(self, key: str, value: bytes, *, expect: str = ANY, by: str = "", op_id: str = "") -> Entry:
        rules.check_write(key, op_id, by)
        rules.check_value(key, value)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))

        def put() -> Entry:
            if expect == ABSENT and not op_id.startswith(rules.RESTORE_OP):
                self._store.require_complete(key)
            self._store.expected(key, expect)
            return self._store.write(key, value, by)

        return await self._ask(lambda: self._store.once("put", key, op_id, put))

    async def delete(self, key: str, *, expect: str = ANY, by: str = "", op_id: str = "") -> bool:
        rules.check_write(key, op_id, by)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))

        def delete() -> bool:
            found = self._store.expected(key, expect)
            if found is not None:
                self._store.write(key, b"null", by, gone=True)
            return found is not None

        return await self._ask(lambda: self._store.once("delete", key, op_id, delete))

    async def append(self, key: str, item: bytes, *, items_max: int, by: str = "", op_id: str = "") -> Entry:
        rules.check_write(key, op_id, by)
        text = rules.check_item(key, item, items_max)

        def append() -> Entry:
            self._store.require_complete(key)
            found = self._store.newest(key)
            array, _ = rules.pushed(key, None if found is None else found.value, None, text, items_max)
            return self._store.write(key, array, by)

        return await self._ask(lambda: self._store.once("append", key, op_id, append))

    async def add(
        self, key: str, amount: int, *, value_max: Limit = None, value_min: Limit = None, by: str = "", op_id: str = ""
    ) -> Count:
        rules.check_write(key, op_id, by)
        low, high = rules.check_counter(key, amount, value_min, value_max)

        def add() -> Count:
            self._store.require_complete(key)
            found = self._store.newest(key)
            value = rules.counter_of(key, None if found is None else found.value)
            if not low <= value + amount <= high:
                return Count(value, False)
            entry = self._store.write(key, b"%d" % (value + amount), by)
            return Count(value + amount, True, entry.version, entry.at_ms)

        return await self._ask(lambda: self._store.once("add", key, op_id, add))

    async def lease(self, key: str, value: bytes, *, ttl_ms: int, expect: bytes = b"") -> bytes:
        rules.check_lease(key, value, ttl_ms)

        def lease() -> bytes:
            found, until_ms = self._store.leases.get(key, (b"", 0))
            stands = found if until_ms > self._store.world.now_ms else b""
            if stands != expect:
                return stands
            self._store.leases[key] = (value, self._store.world.now_ms + ttl_ms)
            return value

        return await self._ask(lease)

    async def history(self, key: str, *, limit: int = 100) -> Sequence[Entry]:
        rules.check_key(key)
        count = rules.check_limit(limit)
        return await self._ask(lambda: self._store.life.past.get(key, [])[::-1][:count])

    async def keys(self, pattern: str = "*") -> Sequence[str]:
        matches = rules.glob(pattern)

        def keys() -> list[str]:
            return sorted(key for key, gone in self._store.life.gone.items() if not gone and matches(key))

        return await self._ask(keys)

    async def watch(self, pattern: str = "*") -> AsyncGenerator[Entry, None]:
        matches = rules.glob(pattern)
        queue: deque[Entry] = deque()
        wakeup = asyncio.Event()
        await self._ask(lambda: self._store.watchers.append((queue, wakeup.set)))
        return self._follow(matches, queue, wakeup)

    async def _follow(
        self, matches: Callable[[str], bool], queue: deque[Entry], wakeup: asyncio.Event
    ) -> AsyncGenerator[Entry, None]:
        while True:
            await wakeup.wait()
            wakeup.clear()
            while queue:
                entry = queue.popleft()
                if matches(entry.key):
                    yield entry

    async def _ask(self, job: Callable[[], T]) -> T:
        """Do one round trip. After BoardUnavailable it is unknown whether it was done."""
        world = self._store.world
        world.check()
        gone = self._store.silent or self._host.cut
        await asyncio.sleep(TIMEOUT_MS / 1000 if gone else world.latency_s())
        if gone or self._store.silent:
            raise BoardUnavailable(f"no answer within {TIMEOUT_MS} ms", where="sim board")
        answer = job()
        await asyncio.sleep(world.latency_s())
        if self._store.silent and world.random.random() < 0.5:
            raise BoardUnavailable("the answer was lost", where="sim board")
        return answer
