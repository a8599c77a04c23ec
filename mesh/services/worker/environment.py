"""The parts and options that all consumers of one worker process share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

from mesh.adapters.ports import SESSION_TIMEOUT_MS, Board, Clock, Log
from mesh.core.task.poison import MARKED_MAX
from mesh.core.topology.model import Topology
from mesh.runtime.execution.isolation import IsolatedProcesses

CANCEL_GRACE_MS: Final = 2_000
ABANDONED_MAX: Final = 32
"""Abandoned calls that may still run; with more of them the process ends and must be restarted."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Limits and times of a worker process; times are in milliseconds."""

    records_max: int = 500
    """Records of one poll."""
    session_timeout_ms: int = SESSION_TIMEOUT_MS
    drain_timeout_ms: int = 10_000
    """Time for running tasks when the process stops."""
    grace_ms: int = CANCEL_GRACE_MS
    """Time for a function to end after its cancellation; then its call is abandoned."""
    abandoned_max: int = ABANDONED_MAX
    holder: str = field(default_factory=lambda: token_hex(8))
    """Name of the process: work that was begun under the same name did not die with another process."""
    after_outage: bool = False
    """The log was away and the process begins again: the previous owners of its partitions did not die of a task."""
    sandbox: bool = False
    """Tasks are replayed: functions see `ctx.sandbox`."""


class MarkSlots:
    """Slots that limit how many suspected tasks run at once in one process: MARKED_MAX, or one that takes all slots.

    Waiting callers are served in order.
    """

    def __init__(self) -> None:
        self.free = MARKED_MAX
        self._acquiring, self._released = asyncio.Lock(), asyncio.Event()

    async def acquire(self, number: int) -> None:
        """Wait for `number` free slots and take them."""
        async with self._acquiring:
            while self.free < number:
                self._released.clear()
                await self._released.wait()
            self.free -= number

    def release(self, number: int) -> None:
        """Give slots back."""
        self.free += number
        self._released.set()


@dataclass(frozen=True, slots=True)
class Environment:
    """The parts of a worker process that every consumer uses."""

    log: Log
    board: Board
    topology: Topology
    clock: Clock
    options: WorkerOptions
    slots: MarkSlots
    isolated_processes: IsolatedProcesses | None
    """Isolated processes for suspected tasks; None: they run in this process."""
    on_abandoned: Callable[[], None]
    """Called after each abandoned call."""
