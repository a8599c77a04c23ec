"""An event loop that the code of agents cannot end, neither by an exit in a task or callback nor by stopping the loop.

asyncio passes SystemExit and KeyboardInterrupt out of the loop, wherever in it they are raised. So one `sys.exit(0)` in
a background task would end the process with success. A copy of the process that an agent forked does not go on in the
loop.
"""

import asyncio
import os
import signal
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
FORKED = 70
"""Exit code of a forked copy of a worker that returns into the worker's loop."""


class GuardedLoop(asyncio.SelectorEventLoop):
    """An event loop that goes on after such an exit or stop, once `report` is set. `report` gets a sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.report: Callable[[str], None] | None = None
        _loops.add(self)

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """See `asyncio.AbstractEventLoop`."""
        main: asyncio.Future[T] = asyncio.ensure_future(future, loop=self)  # type: ignore[arg-type]  # as typeshed has it
        while True:
            try:
                return super().run_until_complete(main)
            except (SystemExit, KeyboardInterrupt, RuntimeError) as error:
                if self.report is None or main.done() or self.is_closed() or _is_ctrl_c(error):
                    raise
                self.report(_describe(error))


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does, in a `GuardedLoop`."""
    with asyncio.Runner(loop_factory=GuardedLoop) as runner:
        return runner.run(main)


def _is_ctrl_c(error: BaseException) -> bool:
    """Return whether a KeyboardInterrupt comes from SIGINT: not while the loop handles that signal itself."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _describe(error: BaseException) -> str:
    if isinstance(error, RuntimeError):
        return "code of an agent stopped the event loop; it goes on"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    where = f"{frame.filename}:{frame.lineno}"
    return f"{what} was raised in a background task or callback, at {where}; the process goes on"


_loops: WeakSet[GuardedLoop] = WeakSet()


def _in_child() -> None:
    for loop in _loops:
        if loop.is_running():  # end the copy with its first callback: it shares sockets and files
            loop.call_soon(os._exit, FORKED)
            loop._ready.rotate(1)  # type: ignore[attr-defined]  # of BaseEventLoop, in every version


os.register_at_fork(after_in_child=_in_child)
