"""Reports an event loop that a function blocks, and in the end exits the process.

A blocked loop sends no heartbeats. After the session timeout another worker gets its partitions and calls the same
function. A task that blocks three processes in a row is detected as poison (`core.task.poison`). Without the exit, each
blocked process would stay, alive and useless. A process that was stopped (SIGSTOP, a sleeping laptop) is not blocked.
"""

import asyncio
import os
import sys
import threading
import traceback
from collections.abc import Sequence
from itertools import pairwise
from types import TracebackType
from typing import Self

from mesh.adapters.diagnostics import diagnostics
from mesh.core.errors import WorkerSpent
from mesh.runtime.execution.agent_modules import PACKAGE, is_library, is_own

LOOK_EVERY_S = 0.2
REPORT_FROM_S = 1.0
"""A loop blocked for this long is reported: its heartbeats, timers and answers are late by as much."""
STACK_FRAMES_MAX = 12
REMEDY = "Await what takes long, or write the agent as a plain `def`: it then gets a thread"
OWN_REMEDY = "Look for a slow disk or a machine without memory or processor time; else this is a fault of the mesh"
_CALLER = os.path.join(PACKAGE, "services", "worker", "invocation.py")
_log = diagnostics("worker")


def blocks_by_agent(stack: Sequence[traceback.FrameSummary]) -> bool:
    """Whether code of an agent runs: the worker called it, or it is neither code of the mesh nor of a library, as in
    tasks that agents create."""
    turns = [n for n, frame in enumerate(stack) if frame.name in ("run_forever", "_run_once")]
    stack = stack[turns[-1] + 1 if turns else 1 :]  # before it comes what began the process
    called = [after for before, after in pairwise(stack) if before.filename == _CALLER and before.name == "answer"]
    if any(not is_own(frame.filename) for frame in called):
        return True
    return any(not is_own(frame.filename) and not is_library(frame.filename) for frame in stack)


class Watchdog:
    """Watches the loop in a thread while it is entered. `blocked_ms_max`: how long the loop may be blocked."""

    def __init__(self, blocked_ms_max: int) -> None:
        self._looks_max = max(1, round(blocked_ms_max / 1000 / LOOK_EVERY_S))
        self._turns = 0
        self._over = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._watched = threading.get_ident()

    def __enter__(self) -> Self:
        self._turn(asyncio.get_running_loop())
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns += 1
        self._timer = loop.call_later(LOOK_EVERY_S, self._turn, loop)

    def _watch(self) -> None:
        seen, looks = 0, 0
        # Counts its own looks instead of reading a clock: when the process was stopped, this thread was stopped, too.
        while not self._over.wait(LOOK_EVERY_S):
            seen, looks = (seen, looks + 1) if seen == self._turns else (self._turns, 0)
            if looks == round(REPORT_FROM_S / LOOK_EVERY_S):
                stack = self._stack()
                at, blamed = stack[-1], blocks_by_agent(stack)
                what = "an agent blocks the event loop" if blamed else "the event loop is blocked, not by an agent"
                where, remedy = f"{at.filename}:{at.lineno} {at.name}", REMEDY if blamed else OWN_REMEDY
                _log.warning(what, for_s=REPORT_FROM_S, where=where, remedy=remedy)
            if looks >= self._looks_max:
                self._end(looks * LOOK_EVERY_S)

    def _stack(self) -> traceback.StackSummary:
        return traceback.extract_stack(sys._current_frames().get(self._watched))

    def _end(self, blocked_s: float) -> None:
        stack = self._stack()
        remedy = REMEDY if blocks_by_agent(stack) else OWN_REMEDY
        shown = "".join(traceback.format_list(stack[-STACK_FRAMES_MAX:]))
        text = (
            f"error: nothing else could run for {blocked_s:.0f} s, since this function blocks the event loop; the"
            f" process ends. {remedy}\n{shown}"
        )
        os.write(sys.stderr.fileno(), text.encode("utf-8", "replace"))
        os._exit(WorkerSpent.exit_code)
