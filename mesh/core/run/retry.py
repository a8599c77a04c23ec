"""Failed attempts. The first rule that applies decides:

later        The agent asked for it: the same attempt is made again, after the time it named, before the deadline.
left alone   The worker did not call the agent, whose breaker is open: as a fallback, else as later.
retry        The failure is retryable and attempts, budget and deadline allow it: the next attempt follows a backoff.
fallback     The next agent of the chain gets the same input, as one more task of the run, under the same limits.
             It is not asked if the input itself is at fault.
pause        As a fallback, but too many agents failed in a row: the run waits for an operator.
give up      The task becomes a dead letter and a failure of the run. A redrive can take both back.

A refused retry or fallback is a refusal of the run only where the task is given up. Elsewhere the work goes on,
nothing is lost, and the refusal is noted.
"""

from dataclasses import replace

from mesh.core.protocol.event import TASK_TIME, Event, Fault, derive_id
from mesh.core.run.backoff import delay_ms
from mesh.core.run.budget import charge, refuse_spend, reserve
from mesh.core.run.circuit_breaker import LEFT_ALONE, Breakers, next_fallback
from mesh.core.run.dead_letter import give_up, record_refusal
from mesh.core.run.effects import Effect, Note
from mesh.core.run.lineage import Refusal, format_path, input_mark, refuse_hop, visits_cap
from mesh.core.run.outputs import refuse_state
from mesh.core.run.routing import begin_task, path_to, schedule_retry
from mesh.core.run.state import Failure, Held, Past, Run, Task
from mesh.core.topology.model import Retry, Topology

INPUT_AT_FAULT = frozenset({"rejected", "schema", "bad_batch"})
"""Faults of the input: no other agent could use it, so the fallback is not asked."""
_UNTRIED = frozenset({"later", LEFT_ALONE})
"""Faults that do not use up an attempt."""
TIME_CHARS_MAX = 64
"""Limit for the time of a task that its worker returns; the mesh writes 24 characters."""
EXPIRY_SLACK_MS = 1_000
"""Delay of the next try of a task that expired longer than this before the deadline of its run."""


def handle_failure(
    run: Run, task: Task, event: Event, topology: Topology, breakers: Breakers, effects: list[Effect]
) -> None:
    """Apply the rules of this module. `task` is the open task that `event` answers."""
    spec = topology.agents[task.agent]
    fault = event.fault or Fault("unknown", "the failure came without a reason", retryable=False)
    given = Held(event.type, event.content_type, event.data, 0)
    if fault.code == "expired":
        if not run.trouble.paused and run.deadline_ms - event.at_ms <= EXPIRY_SLACK_MS:
            text = f"{task.agent!r} was stopped by the deadline; its timer ends the run"
            effects.append(Note("expired", text, run.id))
            return
        # It was handed out before the deadline was moved, or the worker's clock is ahead: not again at wire speed.
        fault = fault._replace(code="later", retry_after_ms=EXPIRY_SLACK_MS)
    excess = charge(run, spec, event.usage, topology.limits)
    if excess is not None:
        effects.append(excess)
    left_alone = fault.code == LEFT_ALONE and bool(spec.fallback)
    refused: list[Refusal] = []
    if left_alone and fall_back(run, task, given, event, topology, breakers, effects, refused):
        return
    due_ms = _next_try_ms(task, event, fault, spec.retry)
    if due_ms:
        refusal = _refuse_retry(run, task, event, due_ms, topology)
        if refusal is None:
            reserve(run, spec)
            past = task.past._replace(laters=task.past.laters + (fault.code in _UNTRIED), time=_time_of_task(event))
            effects.append(schedule_retry(run, replace(task, past=past), event, due_ms))
            effects += refusal_notes(run, refused)
            return
        refused.append(refusal)
    replaces = not left_alone and fault.code not in INPUT_AT_FAULT
    if replaces and fall_back(run, task, given, event, topology, breakers, effects, refused):
        effects += refusal_notes(run, refused)
        return
    for refusal in refused:
        record_refusal(run, refusal)
    del run.open[task.id]
    run.failures = (*run.failures, Failure(task.agent, task.id, task.attempt, fault.code, fault.message, task.path))
    run.trouble = run.trouble._replace(dead=(*run.trouble.dead, task))
    effects.append(give_up(run, task, event, fault))


def fall_back(
    run: Run,
    task: Task,
    given: Held,
    event: Event,
    topology: Topology,
    breakers: Breakers,
    effects: list[Effect],
    refused: list[Refusal],
) -> bool:
    """Replace `task`, whose attempt has been charged, by a task for the next agent of the chain.

    Returns False if there is no such agent, or if a limit refuses it: then `refused` gets the reason.
    """
    name = next_fallback((*task.past.failed, task.agent), topology, breakers, event.at_ms)
    if name is None:
        return False
    spec, above, limits = topology.agents[name], task.path[:-1], topology.limits
    mark = input_mark(spec, given.type, given.data)
    visits = run.visits.get(name, 0) + 1
    refusal = refuse_hop(spec, above, visits, mark, task.inputs, limits) or refuse_spend(run, spec, above, limits)
    if refusal is None and run.tasks >= limits.tasks_max:
        text = f"tasks: falling back on {format_path(above, spec)} would bring the run to {run.tasks + 1} tasks"
        refusal = Refusal("tasks", name, above, limits.tasks_max, run.tasks + 1, f"{text}, at most {limits.tasks_max}")
    if refusal is not None:
        refused.append(refusal)
        return False
    past = Past((*task.past.failed, task.agent), task.past.errors + 1)
    inputs = (*task.inputs, mark) if mark else task.inputs
    id = derive_id(run.id, task.id, "fallback")
    del run.open[task.id]
    new = Task(id, name, task.depth, path_to(above, name), task.branch, event.id, inputs=inputs, past=past)
    if visits_cap(spec, limits) is not None:
        run.visits = {**run.visits, name: visits}
    effects.append(Note("fell_back", f"{name!r} is asked in the place of {task.agent!r}", run.id))
    if past.errors > limits.cascade_max and not run.trouble.paused:
        why = f"cascade: {', '.join(past.failed)} failed one after another, at most {limits.cascade_max} may"
        run.trouble = run.trouble._replace(paused=why, paused_ms=event.at_ms)
        effects.append(Note("cascade", f"the run is paused: {why}", run.id))
    begin_task(run, new, given, event, topology, breakers, effects)
    return True


def refusal_notes(run: Run, refused: list[Refusal]) -> list[Effect]:
    """Return notes of refusals that stopped nothing."""
    return [Note(refusal.code, refusal.message, run.id) for refusal in refused]


def _next_try_ms(task: Task, event: Event, fault: Fault, retry: Retry) -> int:
    """Return the log time of the next try; 0: there is none."""
    if fault.code in _UNTRIED:
        return event.at_ms + max(1, fault.retry_after_ms)
    tries = task.attempt - task.past.laters
    if not fault.retryable or tries >= retry.attempts_max or _is_final(fault, retry):
        return 0
    return event.at_ms + delay_ms(retry, tries, seed=task.id)


def _time_of_task(failure: Event) -> str:
    """Return the time of the task that a failure names; "" if it names none, as those of earlier versions."""
    text = dict(zip(failure.extensions[::2], failure.extensions[1::2], strict=True)).get(TASK_TIME, "")
    return text if len(text) <= TIME_CHARS_MAX else ""


def _is_final(fault: Fault, retry: Retry) -> bool:
    """Whether `final` names the code or class of a fault, or the classes of all exceptions of a group."""
    if not retry.final:
        return False
    group, _, members = fault.cls.removesuffix("]").partition("[")
    return (
        fault.code in retry.final
        or _is_final_error(group, retry)
        or (bool(members) and all(_is_final_error(cls, retry) for cls in members.split(", ")))
    )


def _is_final_error(cls: str, retry: Retry) -> bool:
    return cls in retry.final or cls.rpartition(".")[2] in retry.final


def _refuse_retry(run: Run, task: Task, event: Event, due_ms: int, topology: Topology) -> Refusal | None:
    if due_ms >= run.deadline_ms and not run.trouble.paused:
        took, allowed = due_ms - run.opened_ms, run.deadline_ms - run.opened_ms
        text = f"deadline: {format_path(task.path)} could be tried again {took} ms after the request, at most {allowed}"
        return Refusal("deadline", task.agent, task.path, allowed, took, text)
    refusal = refuse_spend(run, topology.agents[task.agent], task.path[:-1], topology.limits)
    return refusal or refuse_state(run, len(event.data), task, topology.limits)
