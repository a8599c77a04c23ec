"""Tells of an event loop that does not turn: a function blocks it. After long it ends the process, as nothing in the
loop can help.

Meanwhile no heartbeat goes out, so the partitions go to somebody else after the session timeout, and what blocks is
begun there; whoever blocks three processes in a row is found (`core.crashes`). Without this each of them would stay
behind, alive and useless. A process that is merely stopped for a while (SIGSTOP, a laptop that sleeps) is not meant.
"""

import asyncio
import os
import sys
import threading
import traceback
from types import TracebackType
from typing import Self

from mesh.core.errors import WorkerSpent
from mesh.wire.diagnostics import diagnostics

LOOK_EVERY_S = 0.2
TELL_FROM_S = 1.0
"""A loop that stands still for so long is told of: the next heartbeats, timers and answers are late by as much."""
STACK_FRAMES_MAX = 12
REMEDY = "Await what takes long, or write the agent as a plain `def`: it then gets a thread"
_log = diagnostics("worker")


class Watchdog:
    """On duty while it is entered, in a thread of its own. `blocked_ms_max`: how long the loop may stand still."""

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
        # Counts its own looks instead of asking a clock: it was stopped whenever the loop was.
        while not self._over.wait(LOOK_EVERY_S):
            seen, looks = (seen, looks + 1) if seen == self._turns else (self._turns, 0)
            if looks == round(TELL_FROM_S / LOOK_EVERY_S):
                at = self._stack()[-1]
                where = f"{at.filename}:{at.lineno} {at.name}"
                _log.warning("an agent blocks the event loop", for_s=TELL_FROM_S, where=where, remedy=REMEDY)
            if looks >= self._looks_max:
                self._end(looks * LOOK_EVERY_S)

    def _stack(self) -> traceback.StackSummary:
        return traceback.extract_stack(sys._current_frames().get(self._watched), STACK_FRAMES_MAX)

    def _end(self, blocked_s: float) -> None:
        text = (
            f"error: nothing else could run for {blocked_s:.0f} s, since this function blocks the event loop; the"
            f" process ends. {REMEDY}\n{''.join(self._stack().format())}"
        )
        os.write(sys.stderr.fileno(), text.encode("utf-8", "replace"))
        os._exit(WorkerSpent.exit_code)
