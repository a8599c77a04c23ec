"""Lanes: work items with the same key one after the other, different keys in parallel, far above the partition count.

A lane exists while its key has work. Up to `lanes_max` runners take ready lanes in turn; a runner that finds nothing
ends. So ten thousand waiting tasks are ten thousand runners, and none when nothing is to do. Of items that never wait
one runner does all, so they begin few at first, and as many again as there are items in work. An item stays at the head
of its lane until it is done, so that one which was interrupted is the next of its key again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from mesh.runtime.execution.contexts import Contexts, resumed

T = TypeVar("T")

BUSY_MS_MAX = 5.0
"""After this long without a pause a runner lets the loop breathe: heartbeats and polls run on it."""
STARTING_MIN = 8
"""So many runners may be about to take something, however few items are in work."""


class KeyLanes(Generic[T]):
    """`put` work under a key; `handle` is awaited for each item, in order per key and in a fresh context, as the
    context is when this is made. `handle` must not raise."""

    def __init__(self, handle: Callable[[T], Coroutine[Any, Any, None]], *, lanes_max: int) -> None:
        self._handle, self._contexts = handle, Contexts()
        self._lanes_max = lanes_max
        self._waiting: dict[bytes, deque[T]] = {}
        """Key → its items, the one in work first."""
        self._ready: deque[bytes] = deque()
        """Keys with items of which none is in work; empty while held."""
        self._runners: dict[asyncio.Task[None], bytes | None] = {}
        """Each with the key it works on."""
        self._starting: set[asyncio.Task[None]] = set()
        """Runners that have not begun yet, or let the loop breathe: each looks for a ready key soon."""
        self._abandoned: set[asyncio.Task[None]] = set()
        self._paused = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()
        self.queued = 0
        """Items put and not begun."""
        self.running = 0
        """Items begun and not ended; without the abandoned ones."""

    @property
    def abandoned_calls(self) -> int:
        """Abandoned runners that still live."""
        return len(self._abandoned)

    def put(self, key: bytes, item: T) -> None:
        """Queue an item. Raises what a handler raised, if one did so against its promise."""
        if self._error is not None:
            raise self._error
        lane = self._waiting.get(key)
        if lane is None:
            self._waiting[key] = deque((item,))
            if not self._paused:
                self._ready.append(key)
                if len(self._starting) < STARTING_MIN:
                    self._spawn()
        else:
            lane.append(item)
        self.queued += 1

    def fail(self, error: BaseException) -> None:
        """Let `put` and whatever waits here raise this, as if a handler had raised it."""
        self._error = self._error or error
        self._changed.set()

    async def wait_below(self, items_max: int) -> None:
        """Wait until fewer than `items_max` items are queued or running. Raises as `put` does."""
        while self._error is None and self.queued + self.running >= items_max:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    async def wait_idle(self) -> None:
        """Wait until nothing is running. Raises as `put` does."""
        while self._error is None and self.running:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    def pause(self) -> None:
        """Begin nothing new. What runs may end; what is put waits for `release`."""
        self._paused = True
        self._ready.clear()

    def resume(self) -> None:
        """Go on after `hold`, each key with the item it stood at."""
        self._paused = False
        busy = set(self._runners.values())
        self._ready.extend(key for key in self._waiting if key not in busy and key not in self._ready)
        self._spawn()

    def interrupt(self) -> None:
        """Cancel what is in work, while held: each item is the first of its key again."""
        for runner, key in self._runners.items():
            if key is not None:
                runner.cancel()

    def abandon(self, runner: "asyncio.Task[None]", *, keep: bool = False) -> None:
        """Leave a runner alone whose handler does not end: its slot and its key are free from now on.

        `keep`: the item was not done and is the first of its key again. What the handler answers later is nobody's.
        """
        key = self._runners.pop(runner)
        self._abandoned.add(runner)
        self.running -= 1
        if key is not None and (lane := self._waiting.get(key)) is not None:
            self._advance(key, lane, done=not keep)
        self._spawn()
        self._changed.set()

    def cancel(self) -> None:
        """End all runners; items in work are cancelled, queued ones dropped. Those that do not end are strays."""
        self._waiting.clear()
        self._ready.clear()
        self._abandoned.update(self._runners)
        self._runners.clear()
        self._starting.clear()
        self.queued = self.running = 0
        for runner in self._abandoned:
            runner.cancel()
        self._changed.set()

    async def wait_abandoned(self, within_ms: float) -> None:
        """Wait so long for strays to end."""
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=within_ms / 1000)

    def _spawn(self) -> None:
        """See to it that somebody comes for what is ready."""
        while (
            len(self._starting) < len(self._ready)
            and len(self._starting) < max(self.running, STARTING_MIN)
            and len(self._runners) < self._lanes_max
        ):
            runner = asyncio.get_running_loop().create_task(self._run())
            self._runners[runner] = None
            self._starting.add(runner)
            runner.add_done_callback(self._ended)

    async def _run(self) -> None:
        runner = asyncio.current_task()
        assert runner is not None  # this is one
        clock = asyncio.get_running_loop().time  # never the machine's: a simulation owns this one
        since = clock()
        self._starting.discard(runner)
        while self._ready:
            key = self._ready.popleft()
            lane = self._waiting[key]
            self.queued -= 1
            self.running += 1
            self._runners[runner] = key
            if self._ready and not self._starting:
                self._spawn()  # this item may wait for long
            done = False
            try:
                call, in_context = self._handle(lane[0]), self._contexts.new().run
                try:
                    waits_for = in_context(call.send, None)  # as `contexts.within`, for calls that wait for nothing
                except StopIteration:
                    pass
                else:
                    await resumed(in_context, call, waits_for)
                done = True
            except Exception as error:
                self._error = error
                raise
            finally:
                if runner in self._runners:
                    self._runners[runner] = None
                    self.running -= 1
                    if self._waiting.get(key) is lane:
                        self._advance(key, lane, done=done)
                    self._changed.set()
            if runner not in self._runners:
                return  # abandoned: another one runs in its place
            if (clock() - since) * 1000 > BUSY_MS_MAX:
                self._starting.add(runner)
                await asyncio.sleep(0)
                self._starting.discard(runner)
                since = clock()
        del self._runners[runner]  # at once, so that whoever puts something now does not count on it

    def _advance(self, key: bytes, lane: deque[T], *, done: bool) -> None:
        """The head of a lane is not in work any more."""
        if done:
            lane.popleft()
            if not lane:
                del self._waiting[key]
                return
        else:
            self.queued += 1
        if not self._paused:
            self._ready.append(key)

    def _ended(self, runner: "asyncio.Task[None]") -> None:
        self._runners.pop(runner, None)
        self._abandoned.discard(runner)
        self._starting.discard(runner)
        self._changed.set()
        if not runner.cancelled():
            error = runner.exception()
            self._error = self._error or error
        elif not self._paused:
            self._spawn()  # it was interrupted, and meanwhile all was released
