"""Ends a process whose event loop does not turn any more: a function blocks it, and nothing in the loop can help.

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

LOOK_EVERY_S = 0.2
STACK_FRAMES_MAX = 12


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
            if looks >= self._looks_max:
                self._end(looks * LOOK_EVERY_S)

    def _end(self, blocked_s: float) -> None:
        frame = sys._current_frames().get(self._watched)
        stack = "".join(traceback.format_stack(frame)[-STACK_FRAMES_MAX:])
        text = (
            f"error: nothing else could run for {blocked_s:.0f} s, since this function blocks the event loop; the"
            f" process ends. Await what takes long, or write the agent as a plain `def`: it then gets a thread\n{stack}"
        )
        os.write(sys.stderr.fileno(), text.encode("utf-8", "replace"))
        os._exit(WorkerSpent.exit_code)
