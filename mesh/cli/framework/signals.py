"""Ctrl-C and SIGTERM: the first asks to drain, the second ends the process at once."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

import typer

from mesh.cli.framework.failure import INTERRUPTED, TERMINATED

T = TypeVar("T")
DRAINING = "draining: running tasks may end; Ctrl-C again stops at once"
CODES = {signal.SIGINT: INTERRUPTED, signal.SIGTERM: TERMINATED}


class Stopped(Exception):
    """A signal asked to stop while the caller waited."""


@contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM cancel the current task inside the block, as Ctrl-C does, so that it can report its progress.

    The command then ends with the exit code of SIGTERM.
    """
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
    """Handles Ctrl-C and SIGTERM while it is entered. The first signal sets `event` and `code`, the exit code."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self.event = asyncio.Event()
        self.code = 0
        self.last_acts: list[Callable[[], None]] = []
        """Called when the second signal ends this process, for what must not outlive it."""
        self._report = report

    def __enter__(self) -> Self:
        for number in CODES:
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal, number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in CODES:
            asyncio.get_running_loop().remove_signal_handler(number)

    async def unless(self, doing: Awaitable[T]) -> T:
        """Await this; cancel it and raise Stopped if a signal comes first."""
        task = asyncio.ensure_future(doing)
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
        """Wait at most this long for a signal. Return whether it came."""
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            return False
        return True

    def _on_signal(self, number: signal.Signals) -> None:
        if self.event.is_set():
            for act in self.last_acts:
                act()
            sys.stderr.flush()
            os._exit(CODES[number])
        self.code = CODES[number]
        self.event.set()
        self._report(DRAINING)
