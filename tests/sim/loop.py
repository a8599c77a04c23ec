"""A simulated event loop: time jumps to the next timer, and all callbacks run in one fixed order.

Every callback belongs to a `Node` (one simulated process) by its context, or to the world (network, disks, brokers).
Callbacks of a dead node never run again, which simulates `kill -9`. Callbacks of a paused node wait until it is
resumed, which simulates SIGSTOP. The loop uses no time, order or randomness of the machine.
"""

# mypy: disable-error-code="override"
# typeshed gives each method of a loop a signature of its own; callers see those of the loop they are handed

import asyncio
import inspect
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # a loop of which nothing is missing; ours has what services use
    from asyncio import SelectorEventLoop as Loop
else:
    from asyncio import AbstractEventLoop as Loop

T = TypeVar("T")


class Node:
    """One process. `watch`, while set, is called before each of its callbacks: so a fault can hit at any await."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self.backlog: deque[SimHandle] = deque()
        self.watch: Callable[[], None] | None = None
        self.tasks: list[asyncio.Task[Any]] = []
        """All it ever started, so that none is collected (which would run its cleanup) before the end."""
        self.context = Context()
        self.context.run(NODE.set, self)


NODE: ContextVar[Node | None] = ContextVar("node", default=None)
WORLD = Context()
"""The context of what belongs to no process."""


def _nothing() -> None:
    """Do nothing: the callback of a cancelled handle."""


class SimHandle:
    """A callback to run, or not any more."""

    __slots__ = ("args", "callback", "context", "gone", "when_s")

    def __init__(self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context, when_s: float) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.when_s = when_s
        self.gone = False

    def cancel(self) -> None:
        """Do not run it."""
        self.gone = True
        self.args, self.callback = (), _nothing  # what it would have held is free, long before its time comes

    def cancelled(self) -> bool:
        return self.gone

    def when(self) -> float:
        return self.when_s


class SimTask(asyncio.Task[T]):
    """A task whose place in a set does not depend on where it lies in memory."""

    def __init__(self, coro: Coroutine[Any, Any, T], *, loop: "SimLoop", name: str | None, context: Any) -> None:
        self.number = loop.next_number()
        super().__init__(coro, loop=loop, name=name or f"task {self.number}", context=context)

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[T]):
    """A future whose place in a set does not depend on where it lies in memory."""

    number: int

    def __hash__(self) -> int:
        return self.number


class Stuck(AssertionError):
    """An error: no event is left and a task still waits, or the loop does not end."""


class SimLoop(Loop):
    """See the module. `steps` counts callbacks; `complaints` holds what asyncio would have logged."""

    def __init__(self, *, steps_max: int = 20_000_000) -> None:
        # nothing of the superclass is wanted
        self._now_s = 0.0
        self._ready: deque[SimHandle] = deque()
        self._timers: list[tuple[float, int, SimHandle]] = []
        self._numbers = 0
        self._closed = False
        self._steps_max = steps_max
        self.steps = 0
        self.complaints: list[str] = []

    def next_number(self) -> int:
        """Rises by one each time."""
        self._numbers += 1
        return self._numbers

    # ------------------------------------------------------------------------------------------------------ schedule

    def time(self) -> float:
        return self._now_s

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        handle = SimHandle(callback, args, copy_context() if context is None else context, self._now_s)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> Any:
        handle = SimHandle(callback, args, copy_context() if context is None else context, when)
        self._numbers += 1
        heappush(self._timers, (when if when > self._now_s else self._now_s, self._numbers, handle))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        future: SimFuture[Any] = SimFuture(loop=self)
        self._numbers = future.number = self._numbers + 1
        return future

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = SimTask(coro, loop=self, name=name, context=context)
        node = NODE.get() if context is None else context.get(NODE)
        if node is not None:
            node.tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        """There are no threads: it happens now."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # handed to whoever awaits it
            future.set_exception(error)
        return future

    # ----------------------------------------------------------------------------------------------------------- run

    def run_until(self, done: Callable[[], bool]) -> None:
        """Run until `done`, which is asked between callbacks whenever time is about to move. Raises Stuck."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        ready, timers, steps_max = self._ready, self._timers, self._steps_max
        try:
            while True:
                while ready:
                    handle = ready.popleft()
                    if handle.gone:
                        continue
                    context = handle.context
                    node = context.get(NODE)
                    if (
                        node is not None
                        and (node.dead or node.paused or node.watch)
                        and not self._goes_on(node, handle)
                    ):
                        continue
                    self.steps += 1
                    if self.steps > steps_max:
                        text = f"{steps_max} steps in {self._now_s:.3f} s of simulated time"
                        raise Stuck(f"{text}: it goes round and round")
                    try:
                        context.run(handle.callback, *handle.args)
                    except Exception as error:  # noqa: BLE001  # as asyncio does: told, and the loop goes on
                        self.call_exception_handler({"message": f"a callback raised {error!r}", "exception": error})
                if done():
                    return
                if not timers:
                    raise Stuck(f"nothing is left to happen after {self._now_s:.3f} s, and it is not done")
                self._now_s = now_s = timers[0][0]
                while timers and timers[0][0] <= now_s:
                    handle = heappop(timers)[2]
                    if not handle.gone:
                        ready.append(handle)
        finally:
            events._set_running_loop(before)

    @staticmethod
    def _goes_on(node: Node, handle: SimHandle) -> bool:
        """Whether a callback of a node that something happened to, or may happen to, is run now."""
        if not node.dead and node.watch is not None:
            node.watch()
        if node.paused and not node.dead:
            node.backlog.append(handle)
        return not node.dead and not node.paused

    def resume(self, node: Node) -> None:
        """Let a paused node go on with all that happened to it meanwhile."""
        node.paused = False
        self._ready.extend(node.backlog)
        node.backlog.clear()

    def run_until_complete(self, future: Any) -> Any:
        task = future if asyncio.isfuture(future) else self.create_task(future)
        hooks = sys.get_asyncgen_hooks()
        try:
            self.run_until(task.done)
        finally:
            sys.set_asyncgen_hooks(*hooks)
        return task.result()

    # ------------------------------------------------------------------------------------ what asyncio wants of a loop

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.complaints.append(f"{context.get('message')}: {error!r}" if error else str(context.get("message")))

    get_debug = bool  # always False, asked for each future: not worth a frame of Python

    def set_debug(self, enabled: bool) -> None:
        """There is no debug mode."""

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True
        self._ready.clear()
        self._timers.clear()

    async def shutdown_asyncgens(self) -> None:
        """They are closed by whoever made them."""

    async def shutdown_default_executor(self) -> None:
        """There is none."""


def bury(tasks: list["asyncio.Task[Any]"]) -> None:
    """Take tasks that will never go on apart, quietly: their cleanup runs against a world that is over."""
    for task in tasks:
        if not task.done():
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _close(task.get_coro())


def _close(coro: Any, tries_max: int = 64) -> None:
    """From the innermost await outwards. Cleanup that awaits again takes one more try."""
    for _ in range(tries_max):
        innermost = coro
        while (awaited := getattr(innermost, "cr_await", None)) is not None and inspect.iscoroutine(awaited):
            if inspect.getcoroutinestate(awaited) == inspect.CORO_CLOSED:
                break
            innermost = awaited
        try:
            innermost.close()
        except BaseException as error:  # noqa: BLE001  # no caller is left to receive it
            del error
        if inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED:
            return
