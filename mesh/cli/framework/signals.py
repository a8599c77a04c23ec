"""Ctrl-C and SIGTERM: the first asks to drain, the second ends the process at once."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import typer

from mesh.cli.framework.failure import INTERRUPTED, TERMINATED

T = TypeVar("T")
DRAINING = "draining: what runs may end; Ctrl-C again stops at once"
CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Stopped(Exception):
    """Somebody asked to stop while something was being waited for."""


@contextmanager
def terminable() -> Iterator[None]:
    """While it is entered SIGTERM cancels what runs, as Ctrl-C does everywhere, so that it can say how far it came.
    The command ends with the exit code of SIGTERM then. In a task."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    terminated = False

    def end() -> None:
        nonlocal terminated
        terminated = True
        if task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, end)
    try:
        yield
    except asyncio.CancelledError:
        if terminated:
            raise typer.Exit(TERMINATED) from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


class Stop:
    """Listens while it is entered. `event` is set by the first signal, `code` is then the exit code."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.event = asyncio.Event()
        self.code = 0
        self.last_acts: list[Callable[[], None]] = []
        """Done when the second signal ends this process: what must not outlive it."""
        self._tell = tell

    def __enter__(self) -> Self:
        for number in CODES:
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in CODES:
            asyncio.get_running_loop().remove_signal_handler(number)

    async def unless(self, doing: Coroutine[Any, Any, T]) -> T:
        """Do something that may be given up. Raises Stopped when the signal comes first."""
        task = asyncio.get_running_loop().create_task(doing)
        stopping = asyncio.get_running_loop().create_task(self.event.wait())
        try:
            await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Stopped
            return await task
        finally:
            for each in (task, stopping):
                each.cancel()
            await asyncio.gather(task, stopping, return_exceptions=True)

    async def within(self, seconds: float) -> bool:
        """Wait for the signal for so long; whether it came."""
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            return False
        return True

    def _signalled(self, number: signal.Signals) -> None:
        if self.event.is_set():
            for act in self.last_acts:
                act()
            sys.stderr.flush()
            os._exit(CODES[number])
        self.code = CODES[number]
        self.event.set()
        self._tell(DRAINING)
