"""Attempts: one call of an agent's function each, with its time limit and its answer.

A function that took too long is cancelled, and may still answer while it winds up. A call that has not ended
`grace_ms` later is abandoned: its task is answered as timed out, its slot is free, and a late answer is dropped and
counted. A blocking function cannot be cancelled: its thread is abandoned at once and replaced.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Container, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

from mesh.adapters.ports import Board
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
from mesh.services.worker.cache import ResultCache
from mesh.services.worker.counts import Counts
from mesh.services.worker.environment import Environment
from mesh.services.worker.failure_log import FaultLog
from mesh.services.worker.invocation import Function, context_of, crash_loop, failed
from mesh.services.worker.outbox import Changes

RUN_ENDED = Fault("run_ended", "the run ended before the task did", retryable=False)
THREADS_MAX = 64
WAITED_MS_MIN = 100
"""Shorter waits of a task on its topic are not reported."""
LOG_TIME_MS: Final = 1
"""Log time is read again after this long."""


class Attempt:
    """One attempt at a task."""

    abandoned = False
    """The function still runs, but its answer is not awaited any more."""
    killed = False
    """The function ended its isolated process."""
    interrupted = False
    """Cancelled by the kill switch or a stop: the task is run again."""
    run_ended = False
    """Cancelled because the run has ended: the answer has no effect."""
    expired_ms = 0
    """The time limit that was exceeded; 0: none was."""
    by_deadline = False
    """The time limit is what was left of the run's deadline, not the agent's own timeout."""
    due_s = 0.0
    """When the time limit is exceeded, by the event loop's clock."""
    timer: asyncio.TimerHandle | None = None
    """A timer for this attempt alone; None: it shares the timer of all attempts with the agent's own timeout."""
    context: Context | None = None
    """The function's Context, if it takes one."""
    isolated_process: IsolatedProcess | None = None
    """The isolated process that calls the function; None: this process does."""
    release: Callable[[], None] | None = None
    """Gives back what a suspected task occupies. The starter calls it at the end, `on_abandoned` if abandoned."""
    task: Event
    runner: asyncio.Task[Any]

    def __init__(self, work: Work, changes: Changes | None) -> None:
        self.work = work
        self.changes = changes
        """What the function writes on the board; None: the board is not mirrored."""

    def written(self) -> Sequence[BoardChange]:
        """Return what the function wrote on the board, once it has ended or was abandoned."""
        return () if self.changes is None else self.changes.close()


class Caller:
    """Calls one agent's function for tasks.

    `append_changes` returns when changes of the board are durable. `on_abandoned` is called with each attempt that is
    abandoned and its answer (None: it was interrupted, so there is none).
    """

    def __init__(
        self,
        environment: Environment,
        spec: AgentSpec,
        agent: Agent,
        counts: Counts,
        *,
        cache: ResultCache | None,
        append_changes: Callable[[Sequence[BoardChange]], Awaitable[None]],
        on_abandoned: Callable[[Attempt, Event | None], None],
    ) -> None:
        self._spec, self._where = spec, agent.where
        self._log_ms = environment.log.now_ms
        self.board_of: Callable[[Event], Board] = lambda task: environment.board
        """Returns the board that the function sees for a task; in a replay that of a moment."""
        self._now_ms, self._read_s = 0, -math.inf
        """Log time as last read (deadlines of runs are measured by it), and the loop's time of that reading."""
        self._counts, self._cache, self._faults = counts, cache, FaultLog(file_line(agent.function))
        self._grace_s, self._timeout_s = environment.options.grace_ms / 1000, spec.timeout_ms / 1000
        self._append_changes, self._on_abandoned = append_changes, on_abandoned
        self._report_abandoned = environment.on_abandoned
        self.injected_fault: Callable[[], InjectedFault | None] = lambda: None
        """Returns the fault that `mesh break` has set for this agent, while it lasts."""
        self.invoked: Callable[[Awaitable[Event], Event], Awaitable[Event]] | None = None
        """Puts a span around a call of the function; None: there are no spans."""
        self._running: dict[asyncio.Task[Any], Attempt] = {}
        """Attempts with the agent's own timeout, in the order in which they began and so in that of their limits."""
        self._individual: dict[asyncio.Task[Any], Attempt] = {}
        """Attempts with a limit in no such order: shortened by the run's deadline, cancelled, interrupted."""
        self.ended_tasks: Container[str] = ()
        """Ids of tasks whose runs have ended."""
        self._timer: asyncio.TimerHandle | None = None
        """The shared timer, set for the first attempt that was running then."""
        self._wants_context = agent.context is not None
        self.sandbox = False
        """The tasks are replayed: the function sees `ctx.sandbox`."""
        self.resources: object = None
        """The value of the agent's lifespan, for its context."""
        self._threads: Threads | None = None
        if not agent.is_async:
            threads_max = min(spec.lanes, THREADS_MAX)
            count_late = self._count_late
            self._threads = Threads(threads_max, name=spec.name, on_abandon=self._thread_abandoned, on_late=count_late)
        self._function = Function(spec, agent, environment.clock, self._threads)

    @property
    def abandoned_calls(self) -> int:
        """Number of abandoned threads that still run."""
        return 0 if self._threads is None else self._threads.abandoned_calls

    async def answer(self, task: Event, attempt: Attempt) -> Event | None:
        """Return the answer to a task, whatever its function does; None when the attempt was abandoned.

        Raises CancelledError when the attempt was interrupted.
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
        if self.ended_tasks and task.task_id in self.ended_tasks:
            return result.failure_event(task, RUN_ENDED, NO_USAGE)
        attempt.task, attempt.runner = task, runner
        if self._wants_context:
            note = None if attempt.changes is None else attempt.changes.note
            attempt.context = context_of(task, self.board_of(task), note, self.resources, sandbox=self.sandbox)
        self._start_limit(attempt, loop, now_s, left_ms)
        try:
            if self._cache is None:
                answer = await self._call(attempt)
            else:
                answer = await self._cache.through(task, partial(self._call_mirrored, attempt))
        except BaseException as error:  # noqa: BLE001  # an agent may raise anything, even SystemExit
            if attempt.abandoned:
                self._count_late()
                return None
            answer = self._failure(attempt, error)
        finally:
            if self._running.pop(runner, None) is None:
                self._drop_timer(attempt)
        if attempt.abandoned:
            self._count_late()
            return None
        if attempt.expired_ms or attempt.run_ended:
            runner.uncancel()
        if runner.cancelling():
            await self._absorb_cancellation(runner)
        waited_ms, counts = now_ms - task.at_ms, self._counts
        if waited_ms >= WAITED_MS_MIN:
            answer.waited_ms = waited_ms
        counts.waiting.add(waited_ms / 1_000)
        counts.work.add(loop.time() - now_s)
        if (usage := answer.usage) is not None and usage is not NO_USAGE:
            counts.usd_micros += usage.usd_micros
            counts.tokens += usage.tokens
        if answer.kind == SUCCEEDED:
            counts.succeeded += 1
        elif answer.fault is not None:
            counts.failure(answer.fault.code)
            self._faults.failed(task, answer.fault)
        return answer

    def interrupt(self, *, abandon: bool) -> None:
        """Note that all running attempts are about to be cancelled and will be repeated. `abandon`: those that have not
        ended after the grace are abandoned here; otherwise the caller ends them."""
        for attempt in (*self._running.values(), *self._individual.values()):
            attempt.interrupted = True
            if attempt.context is not None:
                attempt.context.cancel()
            self._limit_alone(attempt, self._grace_s if abandon else None, self._abandon)

    def stop(self, task_ids: Container[str]) -> None:
        """Cancel running attempts at these tasks: their runs have ended.

        A blocking function learns of it by its context only. Its thread is not abandoned, as it is at its timeout:
        many runs may end at once, and a process with too many abandoned threads must end.
        """
        for attempt in (*self._running.values(), *self._individual.values()):
            if attempt.task.task_id in task_ids and not (
                attempt.expired_ms or attempt.interrupted or attempt.run_ended
            ):
                attempt.run_ended = True
                if self._threads is None or attempt.isolated_process is not None:
                    self._cancel(attempt)
                elif attempt.context is not None:
                    attempt.context.cancel()

    def close(self) -> None:
        """End idle threads, and log what was only counted."""
        self._faults.flush()
        if self._timer is not None:
            self._timer.cancel()
        if self._threads is not None:
            self._threads.close()

    def _call(self, attempt: Attempt) -> Awaitable[Event]:
        """Call the function, here or in the isolated process of the attempt."""
        if attempt.isolated_process is not None:
            call = self._call_isolated(attempt, attempt.isolated_process)
        else:
            call = self._function.answer(attempt.task, attempt.context, self.injected_fault())
        return call if self.invoked is None else self.invoked(call, attempt.task)

    async def _call_isolated(self, attempt: Attempt, isolated_process: IsolatedProcess) -> Event:
        order = CallRequest(self._spec, self._where, attempt.task, self.injected_fault(), self.sandbox)
        try:
            return await isolated_process.answer(order, None if attempt.changes is None else attempt.changes.note)
        except IsolatedProcessDied as death:
            attempt.killed = True
            if self.sandbox:
                fault = Fault("crash_loop", f"{self._spec.name} ended its process: {death}", retryable=False)
                return result.failure_event(attempt.task, fault, None)
            return crash_loop(attempt.task, attempt.work.death_count + 1)

    async def _call_mirrored(self, attempt: Attempt) -> Event:
        """Call the function and make its board changes durable before the answer is cached: a repetition makes none."""
        answer = await self._call(attempt)
        if attempt.changes is not None and (changes := attempt.changes.take()):
            await self._append_changes(changes)
        return answer

    async def _absorb_cancellation(self, runner: asyncio.Task[Any]) -> None:
        """Clear the cancellation of a function that cancelled itself, so that it does not reach the next task."""
        while runner.cancelling():
            runner.uncancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)

    def _failure(self, attempt: Attempt, error: BaseException) -> Event:
        """Return the answer for an error of the function, or for its cancellation by this worker."""
        if attempt.interrupted:
            raise asyncio.CancelledError from error
        fault = result.fault_of(error, user_frame)
        if attempt.run_ended:
            fault = RUN_ENDED._replace(cls=fault.cls, stack=fault.stack)
        elif attempt.expired_ms:
            fault = self._timeout_fault(attempt, "was cancelled")._replace(cls=fault.cls, stack=fault.stack)
        if attempt.isolated_process is not None:
            return result.failure_event(attempt.task, fault, None)  # what the call spent is not known
        return failed(attempt.task, attempt.context, fault)

    def _timeout_fault(self, attempt: Attempt, what: str) -> Fault:
        if attempt.by_deadline:
            return Fault("expired", f"{self._spec.name} {what} at the run's deadline", retryable=False)
        return Fault("timed_out", f"{self._spec.name} took longer than {attempt.expired_ms} ms and {what}")

    # ---------------------------------------------------------------------------------------------------------- time

    def _start_limit(
        self, attempt: Attempt, loop: asyncio.AbstractEventLoop, now_s: float, left_ms: int | None
    ) -> None:
        """Set the time limit of an attempt: the agent's timeout, or what is left of the run's deadline.

        Attempts with the agent's timeout share one timer: most end long before, and a timer costs more than they do.
        """
        if left_ms is not None and left_ms < self._spec.timeout_ms:
            attempt.by_deadline = True
            self._limit_alone(attempt, left_ms / 1000, partial(self._expire, timeout_ms=left_ms))
            return
        attempt.due_s = now_s + self._timeout_s
        self._running[attempt.runner] = attempt
        if self._timer is None:
            self._timer = loop.call_at(attempt.due_s, self._check_limits)

    def _check_limits(self) -> None:
        """Cancel attempts that exceeded the agent's timeout, and set the shared timer for the next one."""
        self._timer = None
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        try:
            while self._running and (attempt := next(iter(self._running.values()))).due_s <= now_s:
                self._expire(attempt, self._spec.timeout_ms)
        finally:  # a cancellation may raise; the other attempts keep their limits
            if self._running:
                self._timer = loop.call_at(next(iter(self._running.values())).due_s, self._check_limits)

    def _limit_alone(self, attempt: Attempt, seconds: float | None, then: Callable[[Attempt], None]) -> None:
        """Give an attempt a timer of its own; `seconds` None: no limit."""
        self._running.pop(attempt.runner, None)
        self._drop_timer(attempt)
        self._individual[attempt.runner] = attempt
        if seconds is not None:
            attempt.timer = attempt.runner.get_loop().call_later(seconds, then, attempt)

    def _drop_timer(self, attempt: Attempt) -> None:
        self._individual.pop(attempt.runner, None)
        if attempt.timer is not None:
            attempt.timer.cancel()

    def _expire(self, attempt: Attempt, timeout_ms: int) -> None:
        attempt.expired_ms = timeout_ms
        self._cancel(attempt)

    def _cancel(self, attempt: Attempt) -> None:
        if attempt.context is not None:
            attempt.context.cancel()
        self._limit_alone(attempt, self._grace_s, self._abandon)
        attempt.runner.cancel()

    def _abandon(self, attempt: Attempt) -> None:
        """Give up an attempt that has not ended after its cancellation."""
        attempt.abandoned = True
        self._drop_timer(attempt)
        self._counts.abandoned += 1
        answer = None
        if not attempt.interrupted:
            fault = RUN_ENDED
            if not attempt.run_ended:
                fault = self._timeout_fault(attempt, f"did not end {self._grace_s:g} s after it was cancelled")
            answer = failed(attempt.task, attempt.context, fault)
            self._counts.failure(fault.code)
            self._faults.failed(attempt.task, fault)
        self._on_abandoned(attempt, answer)
        self._report_abandoned()

    def _thread_abandoned(self) -> None:
        self._counts.abandoned += 1
        self._report_abandoned()

    def _count_late(self) -> None:
        self._counts.late += 1
