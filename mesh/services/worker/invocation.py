"""One call of an agent's function: a task in, its answer out. Time limits and processes are not handled here."""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from types import CoroutineType

from mesh.adapters.diagnostics import diagnostics, enter_call, trace_field, trace_of
from mesh.adapters.ports import Board, Clock
from mesh.context import Context
from mesh.core.board.changelog import BoardChange
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import NO_USAGE, TASK, Event, Fault, Usage
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.protocol.timestamps import parse_time
from mesh.core.publishing.effect_records import dead_letter
from mesh.core.run.dead_letter import dead_record
from mesh.core.task import result
from mesh.core.task.agent import Agent, Reject, RetryLater
from mesh.core.task.fault_injection import CRASH, ERROR, SLOW, Broken, InjectedFault
from mesh.core.topology.model import AgentSpec, Topology
from mesh.runtime.execution.loop_guard import FORKED
from mesh.runtime.execution.threads import Threads

CRASHED = 137
"""Exit code of a process that `mesh break` crashes: that of one killed by SIGKILL."""
_log = diagnostics("worker")


def task_in(record: Record, agent: str, topology: Topology) -> Event | NewRecord:
    """Return the task in a record, or the dead letter to send when the record holds no task of this agent."""
    task = read_event(record)
    if isinstance(task, Unreadable):
        return dead_letter(dead_record(record, task.code, task.message), topology)
    if task.kind == TASK and task.agent == agent:
        return task
    text = f"{task.kind!r} for agent {task.agent!r} on the topic of {agent!r}"
    return dead_letter(
        dead_record(record, "wrong_agent" if task.kind == TASK else "unknown_kind", text, task), topology
    )


class Function:
    """The function of one agent. `threads`: for a function that blocks."""

    def __init__(self, spec: AgentSpec, agent: Agent, clock: Clock, threads: Threads | None) -> None:
        self._spec, self._agent = spec, agent
        self._function, self._context_name = agent.function, agent.context
        self._clock, self._threads = clock, threads
        self._pid = os.getpid()

    async def answer(self, task: Event, context: Context | None, broken: InjectedFault | None) -> Event:
        """Call the function for a task and return its answer. Raises what it raises. `broken`: a fault to inject."""
        enter_call(task.run_id, task.task_id, task.agent, trace_of(task))
        arguments = result.arguments(self._agent, task)
        if self._context_name is not None:
            arguments[self._context_name] = context
        if broken is not None:
            await self._inject(broken)
        if self._threads is None:
            value = await self._function(**arguments)
        else:
            value = await self._threads.run(partial(self._function, **arguments))
            if isinstance(value, CoroutineType):  # from an `async def` behind a plain decorator
                value = await value
        if os.getpid() != self._pid:
            os._exit(FORKED)  # a copy of this process that the function made
        if isinstance(value, (RetryLater, Reject)):
            return failed(task, context, result.decline_fault(self._agent, value))
        parts = result.parts_of(self._agent, self._spec, value)
        return result.success_event(task, parts, _spent(context))

    async def _inject(self, fault: InjectedFault) -> None:
        """Act out a fault before the function is called."""
        if fault.kind == ERROR:
            raise Broken(f"{fault.message} (broken on purpose)")
        if fault.kind == SLOW:
            await self._clock.sleep_ms(fault.delay_ms)
        elif fault.kind == CRASH:
            os._exit(CRASHED)
        else:
            await asyncio.Event().wait()


def context_of(
    task: Event,
    board: Board,
    changed: Callable[[BoardChange], None] | None,
    resources: object = None,
    *,
    sandbox: bool = False,
) -> Context:
    """Make the Context of a task."""
    return Context(
        agent=task.agent,
        run_id=task.run_id,
        task_id=task.task_id,
        attempt=task.attempt,
        depth=task.depth,
        path=task.path,
        deadline_ms=task.expiry_ms,
        board=board,
        changed=changed,
        loop=asyncio.get_running_loop(),
        resources=resources,
        now_ms=_started_ms(task),
        sandbox=sandbox,
    )


def _started_ms(task: Event) -> int:
    """Return the time that all attempts of a task have in common; the time of the record where it names none."""
    try:
        return parse_time(task.time)
    except ValueError:
        return task.at_ms


def failed(task: Event, context: Context | None, fault: Fault) -> Event:
    """Return the answer of a failed task, with what it spent."""
    return result.failure_event(task, fault, None if fault.code == "bad_usage" else _spent(context))


def _spent(context: Context | None) -> Usage | None:
    """Return the usage that the function reported; none if it took no context."""
    return NO_USAGE if context is None else result.usage_of(context.usd, context.tokens)


def crash_loop(task: Event, deaths: int) -> Event:
    """Return the answer of a task that was in flight at `deaths` deaths of processes."""
    ids = {"agent": task.agent, "run": task.run_id, "task": task.task_id, **trace_field(task)}
    _log.warning("a task kills its process; it is not begun again", attempt=task.attempt, **ids)
    text = f"{deaths} processes of {task.agent} died when they had begun this or were about to"
    return result.failure_event(task, Fault("crash_loop", text, retryable=False), None)
