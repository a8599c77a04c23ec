"""One call of an agent's function: its arguments, its time, and what is said when it has ended, or does not.

A function that took too long is cancelled, and may still answer while it winds up. One that has not ended
`CANCEL_GRACE_MS` later is abandoned: its task is answered as timed out, its slot is free, and what it says one day is
dropped and counted. A blocking function cannot be cancelled: its thread is abandoned at once and replaced.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from mesh.adapters.ports import Board, Clock
from mesh.context import Context
from mesh.core.board.changelog import BoardChange
from mesh.core.protocol.event import NO_USAGE, SUCCEEDED, Event, Fault
from mesh.core.task import result
from mesh.core.task.agent import Agent, file_line
from mesh.core.task.fault_injection import InjectedFault
from mesh.core.topology.model import AgentSpec
from mesh.runtime.execution.agent_modules import user_frame
from mesh.runtime.execution.isolation import CallRequest, IsolatedProcess, IsolatedProcessDied
from mesh.runtime.execution.threads import Threads
from mesh.services.worker.assignment import Work
from mesh.services.worker.board_changes import Changes
from mesh.services.worker.cache import ResultCache
from mesh.services.worker.counts import Counts
from mesh.services.worker.failure_log import FaultLog
from mesh.services.worker.invocation import Function, context_of, crash_loop, failed

CANCEL_GRACE_MS = 2_000
IN_VAIN = Fault("run_ended", "the run ended before the task did", retryable=False)
THREADS_MAX = 64
WAITED_MS_MIN = 100
"""A task that lay on its topic for less was called at once, as far as people care."""
LOG_TIME_MS: Final = 1
"""Log time is read again after this long."""


class Attempt:
    """One piece of work in hand."""

    __slots__ = (
        *("abandoned", "cell", "changes", "context", "deadline", "due_s", "expired", "interrupted"),
        *("in_vain", "killed", "leave", "runner", "task", "timer", "work"),
    )

    def __init__(
        self,
        work: Work,
        changes: Changes | None,
        *,
        leave: Callable[[], None] | None = None,
        cell: IsolatedProcess | None = None,
    ) -> None:
        self.work = work
        self.cell = cell
        """Where its function is called; None: here."""
        self.changes = changes
        """What it writes on the board; None: the board is not mirrored."""
        self.leave = leave
        """Lets others go on, if they wait for it; called by who began it, or when it is abandoned."""
        self.abandoned = False
        """Left alone: nobody waits for it any more."""
        self.killed = False
        """It has ended its cell."""
        self.interrupted = False
        """Cancelled not for what it did: it is to be done again."""
        self.in_vain = False
        """Cancelled since its run has ended: whatever it answers counts for nothing."""
        self.expired = 0
        """The time it took too long for, in milliseconds."""
        self.deadline = False
        """That time was what was left of the run's, not the agent's own."""
        self.due_s = 0.0
        """When it has taken too long, by the loop's clock."""
        self.timer: asyncio.TimerHandle | None = None
        """One of its own; None: it is looked after with all others that have the agent's own time."""
        self.context: Context | None = None
        """What its function is given, if it wants that."""
        self.task: Event
        self.runner: asyncio.Task[Any]

    def written(self) -> Sequence[BoardChange]:
        """What it has written on the board, once it has ended or was left alone."""
        return () if self.changes is None else self.changes.close()


class Caller:
    """Calls one agent's function for tasks. `told` returns when changes of the board are durable, `left` hears of each
    attempt that is abandoned, with its answer (None: it was interrupted, so there is none)."""

    def __init__(
        self,
        spec: AgentSpec,
        agent: Agent,
        board: Board,
        clock: Clock,
        log_ms: Callable[[], int],
        counts: Counts,
        cache: ResultCache | None,
        told: Callable[[Sequence[BoardChange]], Awaitable[None]],
        *,
        grace_ms: int,
        left: Callable[[Attempt, Event | None], None],
        call_abandoned: Callable[[], None],
    ) -> None:
        """`log_ms`: log time, by which the run's deadline is measured."""
        self._spec, self._where = spec, agent.where
        self._board, self._log_ms = board, log_ms
        self._now_ms, self._read_s = 0, -math.inf
        """Log time as it was last read, and when that was by the loop's clock."""
        self._counts, self._cache, self._faults = counts, cache, FaultLog(file_line(agent.function))
        self._grace_s, self._timeout_s = grace_ms / 1000, spec.timeout_ms / 1000
        self._told, self._left, self._call_abandoned = told, left, call_abandoned
        self.fault: Callable[[], InjectedFault | None] = lambda: None
        """What somebody broke on purpose, if it is broken now."""
        self._running: dict[asyncio.Task[Any], Attempt] = {}
        """In the order in which they began, and so in that in which they will have taken too long."""
        self._apart: dict[asyncio.Task[Any], Attempt] = {}
        """Those that run out of time in no such order: cut short by the run's deadline, cancelled, interrupted."""
        self.ended: Container[str] = ()
        """Ids of tasks whose runs have ended."""
        self._timer: asyncio.TimerHandle | None = None
        """Of the first that was running when it was set."""
        self._wants_context = agent.context is not None
        self.resources: object = None
        """The value of the agent's lifespan, for its context."""
        self._threads: Threads | None = None
        if not agent.is_async:
            threads_max = min(spec.lanes, THREADS_MAX)
            self._threads = Threads(threads_max, name=spec.name, on_abandon=self._thread_left, on_late=self._late)
        self._function = Function(spec, agent, clock, self._threads)

    @property
    def abandoned_calls(self) -> int:
        """Threads that were abandoned and have not ended."""
        return 0 if self._threads is None else self._threads.abandoned_calls

    async def answer(self, task: Event, attempt: Attempt) -> Event | None:
        """The answer to a task, whatever its function does; None when the attempt was abandoned meanwhile.

        Raises CancelledError when it was interrupted.
        """
        runner = asyncio.current_task()
        assert runner is not None  # a runner of the lanes
        loop = runner.get_loop()
        now_s = loop.time()
        if now_s >= self._read_s + LOG_TIME_MS / 1000:
            self._read_s, self._now_ms = now_s, self._log_ms()
        now_ms, left_ms = self._now_ms, None
        if task.expiry_ms is not None and (left_ms := task.expiry_ms - now_ms) <= 0:
            self._counts.expired += 1
            fault = Fault("expired", "the run's deadline passed before the task began", retryable=False)
            self._faults.failed(task, fault)
            return result.failure_event(task, fault, NO_USAGE)
        if self.ended and task.task_id in self.ended:
            return result.failure_event(task, IN_VAIN, NO_USAGE)
        attempt.task, attempt.runner = task, runner
        if self._wants_context:
            note = None if attempt.changes is None else attempt.changes.note
            attempt.context = context_of(task, self._board, note, self.resources)
        self._look_after(attempt, loop, now_s, left_ms)
        try:
            if self._cache is None:
                answer = await self._call(attempt)
            else:
                answer = await self._cache.through(task, partial(self._call_mirrored, attempt))
        except BaseException as error:  # noqa: BLE001  # an agent may raise anything, even SystemExit: its answer
            if attempt.abandoned:
                self._late()
                return None
            answer = self._failed(attempt, error)
        finally:
            if self._running.pop(runner, None) is None:
                self._let_go(attempt)
        if attempt.abandoned:
            self._late()
            return None
        if attempt.expired or attempt.in_vain:
            runner.uncancel()
        if runner.cancelling():
            await self._shake_off(runner)
        if now_ms - task.at_ms >= WAITED_MS_MIN:
            answer.waited_ms = now_ms - task.at_ms
        if answer.kind == SUCCEEDED:
            self._counts.succeeded += 1
        elif answer.fault is not None:
            self._counts.failure(answer.fault.code)
            self._faults.failed(task, answer.fault)
        return answer

    def interrupt(self, *, abandon: bool) -> None:
        """All that runs is about to be cancelled, and to be done again later. `abandon`: what has not ended by the end
        of the grace; else the caller sees to it."""
        for attempt in (*self._running.values(), *self._apart.values()):
            attempt.interrupted = True
            if attempt.context is not None:
                attempt.context.cancel()
            self._set_apart(attempt, self._grace_s if abandon else None, self._abandon)

    def stop(self, task_ids: Container[str]) -> None:
        """Cancel those of these tasks that run: their runs have ended.

        A blocking function is told by its context only. Its thread is not left alone, as at its timeout, since many
        runs may end at once, and a process with too many such threads has to end.
        """
        for attempt in (*self._running.values(), *self._apart.values()):
            if attempt.task.task_id in task_ids and not (attempt.expired or attempt.interrupted or attempt.in_vain):
                attempt.in_vain = True
                if self._threads is None or attempt.cell is not None:
                    self._cancel(attempt)
                elif attempt.context is not None:
                    attempt.context.cancel()

    def close(self) -> None:
        """Let idle threads end, and log what was only counted."""
        self._faults.flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._threads is not None:
            self._threads.close()

    def _call(self, attempt: Attempt) -> Awaitable[Event]:
        """The function's answer. If it may kill its process, it is called in another one, and killing that is one."""
        if attempt.cell is not None:
            return self._call_in_cell(attempt, attempt.cell)
        return self._function.answer(attempt.task, attempt.context, self.fault())

    async def _call_in_cell(self, attempt: Attempt, cell: IsolatedProcess) -> Event:
        order = CallRequest(self._spec, self._where, attempt.task, self.fault())
        try:
            return await cell.answer(order, None if attempt.changes is None else attempt.changes.note)
        except IsolatedProcessDied:
            attempt.killed = True
            return crash_loop(attempt.task, attempt.work.death_count + 1)

    async def _call_mirrored(self, attempt: Attempt) -> Event:
        """A call whose answer is about to be kept: whoever repeats it will not repeat what it wrote on the board."""
        answer = await self._call(attempt)
        if attempt.changes is not None and (changes := attempt.changes.take()):
            await self._told(changes)
        return answer

    async def _shake_off(self, runner: asyncio.Task[Any]) -> None:
        """The function cancelled itself. What it ended with is its answer; nothing of that may reach the next task."""
        while runner.cancelling():
            runner.uncancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    def _failed(self, attempt: Attempt, error: BaseException) -> Event:
        """What an error means: its own, or ours when we cancelled it."""
        if attempt.interrupted:
            raise asyncio.CancelledError from error
        fault = result.fault_of(error, user_frame)
        if attempt.in_vain:
            fault = IN_VAIN._replace(cls=fault.cls, stack=fault.stack)
        elif attempt.expired:
            fault = self._slow(attempt, "was cancelled")._replace(cls=fault.cls, stack=fault.stack)
        if attempt.cell is not None:
            return result.failure_event(attempt.task, fault, None)  # what it spent there is not known
        return failed(attempt.task, attempt.context, fault)

    def _slow(self, attempt: Attempt, what: str) -> Fault:
        if attempt.deadline:
            return Fault("expired", f"{self._spec.name} {what} at the run's deadline", retryable=False)
        return Fault("timed_out", f"{self._spec.name} took longer than {attempt.expired} ms and {what}")

    # ---------------------------------------------------------------------------------------------------------- time

    def _look_after(self, attempt: Attempt, loop: asyncio.AbstractEventLoop, now_s: float, left_ms: int | None) -> None:
        """It begins, and has the agent's own time, or what is left to its run. All that have the agent's own share one
        timer: most have ended long before, and a timer costs more than what they do."""
        if left_ms is not None and left_ms < self._spec.timeout_ms:
            attempt.deadline = True
            self._set_apart(attempt, left_ms / 1000, partial(self._expire, timeout_ms=left_ms))
            return
        attempt.due_s = now_s + self._timeout_s
        self._running[attempt.runner] = attempt
        if self._timer is None:
            self._timer = loop.call_at(attempt.due_s, self._look)

    def _look(self) -> None:
        """Cancel those that have taken too long, and look again when the next one may have."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        try:
            while self._running and (attempt := next(iter(self._running.values()))).due_s <= now_s:
                self._expire(attempt, self._spec.timeout_ms)
        finally:  # what one waits for may not let itself be cancelled, and raise: the others are none the wiser
            if self._running:
                self._timer = loop.call_at(next(iter(self._running.values())).due_s, self._look)

    def _set_apart(self, attempt: Attempt, seconds: float | None, then: Callable[[Attempt], None]) -> None:
        """Give it a time of its own; None: it has all the time that there is."""
        self._running.pop(attempt.runner, None)
        self._let_go(attempt)
        self._apart[attempt.runner] = attempt
        if seconds is not None:
            attempt.timer = attempt.runner.get_loop().call_later(seconds, then, attempt)

    def _let_go(self, attempt: Attempt) -> None:
        self._apart.pop(attempt.runner, None)
        if attempt.timer is not None:
            attempt.timer.cancel()

    def _expire(self, attempt: Attempt, timeout_ms: int) -> None:
        attempt.expired = timeout_ms
        self._cancel(attempt)

    def _cancel(self, attempt: Attempt) -> None:
        if attempt.context is not None:
            attempt.context.cancel()
        self._set_apart(attempt, self._grace_s, self._abandon)
        attempt.runner.cancel()

    def _abandon(self, attempt: Attempt) -> None:
        """It was cancelled and has not ended."""
        attempt.abandoned = True
        self._let_go(attempt)
        self._counts.abandoned += 1
        answer = None
        if not attempt.interrupted:
            fault = IN_VAIN
            if not attempt.in_vain:
                fault = self._slow(attempt, f"did not end {self._grace_s:g} s after it was cancelled")
            answer = failed(attempt.task, attempt.context, fault)
            self._counts.failure(fault.code)
            self._faults.failed(attempt.task, fault)
        self._left(attempt, answer)
        self._call_abandoned()

    def _thread_left(self) -> None:
        self._counts.abandoned += 1
        self._call_abandoned()

    def _late(self) -> None:
        self._counts.late += 1
