"""The parts and options that all consumers of one worker process share."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Final, TypeVar

from mesh.adapters.ports import SESSION_TIMEOUT_MS, Board, Clock, Groups, Log
from mesh.core.protocol.event import Event
from mesh.core.task.poison import MARKED_MAX
from mesh.core.topology.model import Topology
from mesh.runtime.execution.isolation import IsolatedProcesses

A = TypeVar("A")

ORDER_WAIT_MS: Final = 1_000
"""Longest wait of a replayed answer for those that came before it in the recording."""
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


@dataclass(slots=True)
class Recorded:
    """The parts of a recording that a worker in a sandbox uses.

    Answers are given in the recorded order of their run: the id of a task that joins events depends on the last one.
    """

    times: Mapping[str, str] = field(default_factory=dict)
    """Task id → its recorded time."""
    answers: Mapping[str, Event] = field(default_factory=dict)
    """Id of an attempt → its recorded answer, which is given without a call."""
    inputs: Mapping[str, bytes] = field(default_factory=dict)
    """Task id → another payload than that which it comes with."""
    orders: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Run id → ids of the attempts that were answered, in order."""
    _given: set[str] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def around(
        self, answer: Callable[[Event, A], Awaitable[Event | None]]
    ) -> Callable[[Event, A], Awaitable[Event | None]]:
        """Return `answer` for tasks as they are recorded."""

        async def replayed(task: Event, attempt: A) -> Event | None:
            task.time = self.times.get(task.task_id, task.time)
            task.data = self.inputs.get(task.task_id, task.data)
            given: Event | None = self.answers.get(task.id)
            if given is None:
                given = await answer(task, attempt)
            else:
                given = replace(given, at_ms=task.at_ms, path=task.path, depth=task.depth, origin=task.origin)
            await self._wait_turn(task)
            return given

        return replayed

    async def _wait_turn(self, task: Event) -> None:
        """Wait until the attempts that were answered earlier are answered, or are not for ORDER_WAIT_MS."""
        order = self.orders.get(task.run_id, ())
        before = set(order[: order.index(task.id)]) if task.id in order else set()
        with suppress(TimeoutError):
            async with asyncio.timeout(ORDER_WAIT_MS / 1000):
                while not before <= self._given:
                    self._changed.clear()
                    await self._changed.wait()
        self._given |= {task.id, *before}  # one that did not come is not waited for again
        self._changed.set()


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
    groups: Groups
    """Where consumers join the groups of their agents: the log, or a Faust app."""
    board: Board
    topology: Topology
    clock: Clock
    options: WorkerOptions
    slots: MarkSlots
    isolated_processes: IsolatedProcesses | None
    """Isolated processes for suspected tasks; None: they run in this process."""
    on_abandoned: Callable[[], None]
    """Called after each abandoned call."""
