"""Lanes: work items with the same key one after the other, different keys in parallel, far above the partition count.

A lane exists while its key has work. Up to `lanes_max` runners take ready lanes in turn; a runner that finds nothing
ends. So ten thousand waiting tasks are ten thousand runners, and none when nothing is to do.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

BUSY_MS_MAX = 5.0
"""After this long without a pause a runner lets the loop breathe: heartbeats and polls run on it."""


class Lanes(Generic[T]):
    """`put` work under a key; `handle` is awaited for each item, in order per key. `handle` must not raise."""

    def __init__(self, handle: Callable[[T], Awaitable[None]], *, lanes_max: int) -> None:
        self._handle = handle
        self._lanes_max = lanes_max
        self._waiting: dict[bytes, deque[T]] = {}
        self._ready: deque[bytes] = deque()
        self._runners: set[asyncio.Task[None]] = set()
        self._error: BaseException | None = None
        self._changed = asyncio.Event()
        self.queued = 0
        """Items put and not begun."""
        self.running = 0
        """Items begun and not ended."""

    def put(self, key: bytes, item: T) -> None:
        """Queue an item. Raises what a handler raised, if one did so against its promise."""
        if self._error is not None:
            raise self._error
        lane = self._waiting.get(key)
        if lane is None:
            self._waiting[key] = deque((item,))
            self._ready.append(key)
            if len(self._runners) < self._lanes_max:
                runner = asyncio.get_running_loop().create_task(self._run())
                self._runners.add(runner)
                runner.add_done_callback(self._ended)
        else:
            lane.append(item)
        self.queued += 1

    async def below(self, items_max: int) -> None:
        """Wait until fewer than `items_max` items are queued or running. Raises as `put` does."""
        while self._error is None and self.queued + self.running >= items_max:
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """End all runners; items in work are cancelled, queued ones dropped."""
        self._waiting.clear()
        self._ready.clear()
        self.queued = 0
        for runner in self._runners:
            runner.cancel()

    async def _run(self) -> None:
        since = time.monotonic()
        while self._ready:
            key = self._ready.popleft()
            lane = self._waiting[key]
            item = lane.popleft()
            self.queued -= 1
            self.running += 1
            try:
                await self._handle(item)
            except Exception as error:
                self._error = error
                raise
            finally:
                self.running -= 1
                self._changed.set()
            if self._waiting.get(key) is lane:
                if lane:
                    self._ready.append(key)
                else:
                    del self._waiting[key]
            now = time.monotonic()
            if (now - since) * 1000 > BUSY_MS_MAX:
                await asyncio.sleep(0)
                since = time.monotonic()

    def _ended(self, runner: asyncio.Task[None]) -> None:
        self._runners.discard(runner)
        self._changed.set()
        if not runner.cancelled():
            self._error = self._error or runner.exception()
