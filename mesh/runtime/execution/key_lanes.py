"""Key lanes: items with the same key run one after the other, items with different keys in parallel.

The number of lanes is far above that of partitions. A lane exists while its key has items. Up to `lanes_max` runners
take ready lanes in turn, and a runner that finds none ends. So ten thousand waiting items are ten thousand runners, and
none when nothing is to do. One runner handles all items that never wait. Hence few runners start at first, and later as
many as there are items in work. An item stays at the head of its lane until it is done, so that an interrupted item is
the next of its key again.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from mesh.runtime.execution.contexts import Contexts, resume_coroutine

T = TypeVar("T")

BUSY_MS_MAX = 5.0
"""Longest time that a runner works without a pause. Heartbeats and polls run on the same event loop."""
STARTING_MIN = 8
"""Number of runners that may be starting, however few items are in work."""


class KeyLanes(Generic[T]):
    """Runs `handle` for each item that is `put` under a key, in order per key.

    Each call has a fresh context, a copy of the one in which this was made. `handle` must not raise.
    """

    def __init__(self, handle: Callable[[T], Coroutine[Any, Any, None]], *, lanes_max: int) -> None:
        self._handle, self._contexts = handle, Contexts()
        self._lanes_max = lanes_max
        self._waiting: dict[bytes, deque[T]] = {}
        """Key → its items, the one in work first."""
        self._ready: deque[bytes] = deque()
        """Keys with items of which none is in work; empty while paused."""
        self._runners: dict[asyncio.Task[None], bytes | None] = {}
        """Runner → the key it works on."""
        self._starting: set[asyncio.Task[None]] = set()
        """Runners that have not begun or are in a pause: each takes a ready key soon."""
        self._abandoned: set[asyncio.Task[None]] = set()
        self._paused = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()
        self.queued = 0
        """Number of items put and not begun."""
        self.running = 0
        """Number of items begun and not ended, without the abandoned ones."""

    @property
    def abandoned_calls(self) -> int:
        """The number of abandoned runners that have not ended."""
        return len(self._abandoned)

    def put(self, key: bytes, item: T) -> None:
        """Queue an item. Raises the error of a handler, if one raised."""
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
        """Make `put` and all waits raise this error, as if a handler had raised it."""
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
        """Begin no further item. Running items go on, new ones wait for `resume`."""
        self._paused = True
        self._ready.clear()

    def resume(self) -> None:
        """Go on after `pause`, each key with the item at its head."""
        self._paused = False
        busy = set(self._runners.values())
        self._ready.extend(key for key in self._waiting if key not in busy and key not in self._ready)
        self._spawn()

    def interrupt(self) -> None:
        """Cancel the items in work, while paused: each is the first of its key again."""
        for runner, key in self._runners.items():
            if key is not None:
                runner.cancel()

    def abandon(self, runner: "asyncio.Task[None]", *, keep: bool = False) -> None:
        """Abandon a runner whose handler does not end: its slot and its key are free from now on.

        `keep`: the item was not done and is the first of its key again. A later result of the handler is ignored.
        """
        key = self._runners.pop(runner)
        self._abandoned.add(runner)
        self.running -= 1
        if key is not None and (lane := self._waiting.get(key)) is not None:
            self._advance(key, lane, done=not keep)
        self._spawn()
        self._changed.set()

    def cancel(self) -> None:
        """Cancel all runners and drop the queued items. Runners that do not end count as abandoned."""
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
        """Wait at most this long for abandoned runners to end."""
        if self._abandoned:
            await asyncio.wait(self._abandoned, timeout=within_ms / 1000)

    def _spawn(self) -> None:
        """Start runners for ready keys."""
        while (
            len(self._starting) < len(self._ready)
            and len(self._starting) < max(self.running, STARTING_MIN)
            and len(self._runners) < self._lanes_max
        ):
            runner = asyncio.get_running_loop().create_task(self._run())
            self._runners[runner] = None
            self._starting.add(runner)
            runner.add_done_callback(self._on_ended)

    async def _run(self) -> None:
        runner = asyncio.current_task()
        assert runner is not None  # this is one
        clock = asyncio.get_running_loop().time  # the loop's clock, which a simulation controls
        since = clock()
        self._starting.discard(runner)
        while self._ready:
            key = self._ready.popleft()
            lane = self._waiting[key]
            self.queued -= 1
            self.running += 1
            self._runners[runner] = key
            if self._ready and not self._starting:
                self._spawn()  # this item may wait long
            done = False
            try:
                call, in_context = self._handle(lane[0]), self._contexts.new().run
                try:
                    waits_for = in_context(call.send, None)  # as `contexts.within`, for calls that wait for nothing
                except StopIteration:
                    pass
                else:
                    await resume_coroutine(in_context, call, waits_for)
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
                return  # abandoned: another runner has its slot
            if (clock() - since) * 1000 > BUSY_MS_MAX:
                self._starting.add(runner)
                await asyncio.sleep(0)
                self._starting.discard(runner)
                since = clock()
        del self._runners[runner]  # at once, so that a `put` from now on starts another runner

    def _advance(self, key: bytes, lane: deque[T], *, done: bool) -> None:
        """Go on to the next item of a lane after its head was done or interrupted."""
        if done:
            lane.popleft()
            if not lane:
                del self._waiting[key]
                return
        else:
            self.queued += 1
        if not self._paused:
            self._ready.append(key)

    def _on_ended(self, runner: "asyncio.Task[None]") -> None:
        self._runners.pop(runner, None)
        self._abandoned.discard(runner)
        self._starting.discard(runner)
        self._changed.set()
        if not runner.cancelled():
            error = runner.exception()
            self._error = self._error or error
        elif not self._paused:
            self._spawn()  # interrupted, and resumed meanwhile
