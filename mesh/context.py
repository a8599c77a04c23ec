"""The Context of an agent's function: facts of its task, the blackboard, and the report of what it spent."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from decimal import Decimal, InvalidOperation
from functools import wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

import orjson

from mesh.adapters.ports import ABSENT, ANY, Board, Count, Entry
from mesh.core.board.changelog import BoardChange
from mesh.core.errors import BoardIncomplete, Conflict, InvalidInput
from mesh.core.payload.json_encode import encode
from mesh.core.protocol.json_check import Flaw

P = ParamSpec("P")
T = TypeVar("T")

UPDATE_TRIES_MAX = 64
COMPLETE_WAIT_MS = 10_000
"""Time for lost values of the board to be restored before a write raises BoardIncomplete."""
_COMPLETE_POLL_MS = 50


class Item(NamedTuple):
    """A parsed value on the board. `put(expect=item.version)` writes only if the value has not changed since.

    `at_ms`: time of the write, in milliseconds since the epoch. `by`: its writer, `agent/task id`.
    """

    key: str
    value: Any
    version: str
    at_ms: int
    by: str


def _in_its_loop(
    operation: Callable[Concatenate["AgentBoard", P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["AgentBoard", P], Coroutine[Any, Any, T]]:
    """Run an operation of the board in the event loop of the store."""

    @wraps(operation)
    async def run(self: "AgentBoard", /, *args: P.args, **kwargs: P.kwargs) -> T:
        running = operation(self, *args, **kwargs)
        if self._loop is None or self._loop is asyncio.get_running_loop():
            return await running
        if self.cancelling:
            self.cancelling = False
            running.close()
            raise asyncio.CancelledError("the answer of this task is no longer awaited")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(running, self._loop))

    return run


class AgentBoard:
    """The blackboard as an agent sees it: values are JSON-able or pydantic models, writes carry the task's name.

    Raises BoardUnavailable (retriable) when the store does not answer, Conflict when a version differs, InvalidInput
    for a bad key, a value that is not JSON-able or over 64 KiB. After the store lost values, writes that depend on the
    present value (`add`, `append`, `update`, `put(expect="")`) wait until the values are restored, at most
    COMPLETE_WAIT_MS. The n-th `append` or `add` of a task to a key is applied once, however often the task is repeated;
    `put` and `update` are applied each time.

    `changed` is called with every write that the store acknowledged, also for a repeated operation.

    The store belongs to one event loop, `loop`. A blocking function may use the board in a loop of its own, as
    `asyncio.run(ctx.board.add("seen"))`: the operation then runs in the loop of the store.
    """

    def __init__(
        self,
        board: Board,
        *,
        by: str,
        op_prefix: str,
        changed: Callable[[BoardChange], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._board = board
        self._changed, self._loop = changed, loop
        self.cancelling = False
        """The next operation in another loop is cancelled."""
        self._by = by
        self._op_prefix = op_prefix
        self._ops: dict[str, int] = {}

    @_in_its_loop
    async def get(self, key: str) -> Item | None:
        """Return the value at `key`, or None."""
        entry = await self._board.get(key)
        return None if entry is None else _item(entry)

    @_in_its_loop
    async def put(self, key: str, value: Any, *, expect: str = ANY, verify: bool = False) -> Item:
        """Write a value. `expect`: the version that must be current (`""`: no value yet), else Conflict is raised.

        `verify` reads the value back and raises Conflict if another version is current then.
        """
        entry = await self._put(key, _json(value), expect)
        if verify:
            found = await self._board.get(key)
            if found is None or (found.version, found.value) != (entry.version, entry.value):
                raise Conflict(key, expected=entry.version, current=ABSENT if found is None else found.version)
        return self._item(entry)

    @_in_its_loop
    async def update(self, key: str, change: Callable[[Any], Any], *, default: Any = None) -> Item:
        """Read, change and write by compare-and-set; repeat after concurrent writes (64 tries, then Conflict).

        `change` gets the parsed value (or `default`) and returns the new one; it may be called several times.
        """
        async with _update_lock(self._board, key):
            for tries_left in range(UPDATE_TRIES_MAX, 0, -1):
                found = await self._board.get(key)
                value = orjson.loads(_json(default) if found is None else found.value)
                expect = ABSENT if found is None else found.version
                try:
                    return self._item(await self._put(key, _json(change(value)), expect))
                except Conflict:
                    if tries_left == 1:
                        raise
        raise AssertionError("unreachable: the loop returns or raises")

    @_in_its_loop
    async def append(self, key: str, item: Any, *, items_max: int = 100) -> Item:
        """Append to the list at `key`, dropping the oldest items beyond `items_max`. Never conflicts."""
        op_id = self._op_id(key)
        data = _json(item)
        entry = await _until_complete(
            lambda: self._board.append(key, data, items_max=items_max, by=self._by, op_id=op_id)
        )
        return self._item(entry, op_id)

    @_in_its_loop
    async def add(
        self, key: str, amount: int = 1, *, value_max: int | None = None, value_min: int | None = None
    ) -> Count:
        """Add to the counter at `key` unless the sum would exceed a limit; see `applied` of the result."""
        op_id = self._op_id(key)
        count = await _until_complete(
            lambda: self._board.add(key, amount, value_max=value_max, value_min=value_min, by=self._by, op_id=op_id)
        )
        if self._changed is not None and count.version:
            self._changed(BoardChange(key, b"%d" % count.value, count.version, self._by, op_id, count.at_ms))
        return count

    @_in_its_loop
    async def history(self, key: str, *, limit: int = 100) -> Sequence[Item]:
        """Return past values, newest first; the current value is the first."""
        return [_item(e) for e in await self._board.history(key, limit=limit)]

    @_in_its_loop
    async def keys(self, pattern: str = "*") -> Sequence[str]:
        """Return the keys that match a glob, sorted."""
        return await self._board.keys(pattern)

    async def _put(self, key: str, value: bytes, expect: str) -> Entry:
        return await _until_complete(lambda: self._board.put(key, value, expect=expect, by=self._by))

    def _item(self, entry: Entry, op_id: str = "") -> Item:
        """Report a write to `changed` and return its item."""
        if self._changed is not None:
            self._changed(BoardChange(entry.key, entry.value, entry.version, entry.by, op_id, entry.at_ms))
        return _item(entry)

    def _op_id(self, key: str) -> str:
        """Return the id of the next operation on a key. A repeated task may use keys in another order."""
        self._ops[key] = self._ops.get(key, 0) + 1
        return f"{self._op_prefix}:{self._ops[key]}"


class Context:
    """Facts of the running task.

    `task_id` is the idempotency key for tools: the same for every attempt and delivery of the task, and unique to it. A
    function may be called again for a task: by a retry, after a process died, or after a partition moved. Give the key
    to every call that acts on the world: `charge(card, usd, idempotency_key=ctx.task_id)`. A task that acts more than
    once adds a word for each act: `f"{ctx.task_id}:charge"`. `attempt` counts from 1. `deadline_ms` is the deadline of
    the run, in milliseconds since the epoch.

    `now_ms` and `random()` take the place of clock and dice: they give a task the same values on every attempt, and
    again when it is replayed. `sandbox` is true in a replay. A replay cannot prevent effects of a function outside
    the mesh; a function with such effects can check: `if not ctx.sandbox: send(mail)`.
    """

    __mesh_context__ = True
    __slots__ = (
        *("_board", "_changed", "_loop", "_random", "_store", "agent", "cancelled", "attempt", "deadline_ms", "depth"),
        *("now_ms", "path", "resources", "run_id", "sandbox", "task_id", "tokens", "usd"),
    )

    def __init__(
        self,
        *,
        agent: str,
        run_id: str,
        task_id: str,
        attempt: int,
        depth: int,
        path: tuple[str, ...],
        deadline_ms: int | None,
        board: Board,
        changed: Callable[[BoardChange], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        resources: Any = None,
        now_ms: int = 0,
        sandbox: bool = False,
    ) -> None:
        """`loop`: the event loop that the board belongs to; None: the one that runs at each operation."""
        self.agent = agent
        self.run_id = run_id
        self.task_id = task_id
        self.attempt = attempt
        self.depth = depth
        self.path = path
        self.deadline_ms = deadline_ms
        self.now_ms = now_ms
        """Time by the log's clock at which the task was started, in milliseconds since the epoch. It stands still: for
        durations use `time.monotonic`."""
        self.sandbox = sandbox
        """Whether this is a replay (`mesh replay --run`, `mesh replay --agent`), in which nothing should be done."""
        self._random: random.Random | None = None
        self.resources = resources
        """The value that the agent's `lifespan` yielded in this process; None without one."""
        self._store, self._changed, self._loop = board, changed, loop
        self._board: AgentBoard | None = None
        self.cancelled = False
        """Whether the answer is no longer awaited: the task took too long, its run has ended, or its agent was stopped.
        An `async def` is cancelled then. A blocking function can read this flag, and its next use of the board in a
        loop of its own raises CancelledError once."""
        self.tokens = 0
        self.usd = Decimal(0)

    @property
    def board(self) -> AgentBoard:
        """The blackboard; writes carry the names of the agent and the task."""
        if self._board is None:  # most functions never use it
            by = f"{self.agent}/{self.task_id}"
            self._board = AgentBoard(self._store, by=by, op_prefix=self.task_id, changed=self._changed, loop=self._loop)
            self._board.cancelling = self.cancelled
        return self._board

    def random(self) -> random.Random:
        """Return the random numbers of this task: one generator, seeded with the task's id. Not for secrets."""
        if self._random is None:
            self._random = random.Random(self.task_id)
        return self._random

    def cancel(self) -> None:
        """Set `cancelled`; for the worker."""
        self.cancelled = True
        if self._board is not None:
            self._board.cancelling = True

    def spend(self, *, usd: Decimal | float | str = 0, tokens: int = 0) -> None:
        """Report usage of this task; it is charged to the run's budget when the task ends, also when it fails.

        Raises InvalidInput (`bad_usage`) for an invalid amount: negative, NaN, infinite, not a number.
        """
        try:
            amount = Decimal(str(usd))
        except InvalidOperation:
            amount = Decimal("NaN")
        if not amount.is_finite() or amount < 0:
            raise _bad_usage("usd", "an amount of dollars, 0 or more", usd)
        if not isinstance(tokens, int) or isinstance(tokens, bool) or tokens < 0:
            raise _bad_usage("tokens", "a whole number, 0 or more", tokens)
        self.usd += amount
        self.tokens += tokens


def _bad_usage(name: str, expected: str, got: Any) -> InvalidInput:
    return InvalidInput(
        "invalid amount spent",
        code="bad_usage",
        where=f"spend({name}=…)",
        expected=expected,
        got=f"{got!r:.40}",
        remedy="Report what the provider says it charged",
    )


async def _until_complete(write: Callable[[], Awaitable[T]]) -> T:
    """Repeat a write until the board is complete, for COMPLETE_WAIT_MS at most. Raises the error of the last try."""
    for tries_left in range(COMPLETE_WAIT_MS // _COMPLETE_POLL_MS, 0, -1):
        try:
            return await write()
        except BoardIncomplete:
            if tries_left == 1:
                raise
        await asyncio.sleep(_COMPLETE_POLL_MS / 1000)
    raise AssertionError("unreachable: the loop returns or raises")


def _item(entry: Entry) -> Item:
    return Item(entry.key, orjson.loads(entry.value), entry.version, entry.at_ms, entry.by)


def _json(value: Any) -> bytes:
    data = encode(value)
    if isinstance(data, Flaw):
        raise InvalidInput(
            f"invalid value for the board: {data.message}",
            code=data.code,
            where="board",
            expected="a pydantic model or JSON-able values",
            got=type(value).__name__,
        )
    return data


_update_locks: WeakKeyDictionary[Board, WeakValueDictionary[str, asyncio.Lock]] = WeakKeyDictionary()
"""Board → key → lock. A lock exists while a task holds it or waits for it."""


def _update_lock(board: Board, key: str) -> asyncio.Lock:
    """Return the lock that allows one update of a key at a time in this process.

    Without it hundreds of lanes would mostly conflict with each other.
    """
    locks = _update_locks.setdefault(board, WeakValueDictionary())
    return locks.setdefault(key, asyncio.Lock())
