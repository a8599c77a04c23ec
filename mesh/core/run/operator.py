"""Operator actions on a run: pause it, resume it, redrive one of its dead letters.

A paused run takes in results of running tasks and begins nothing. Its deadline stands still, for at most
`limits.pause`. A redrive continues where a task failed for good. The failure is taken back, and the input (perhaps
edited) goes to the first agent of the fallback chain. A run that had ended is open again, one generation later.
A redrive of a refused hop takes that refusal back, found by the id of its dead letter. A second redrive of it makes
the hop again and takes nothing back.
"""

from mesh.core.protocol.event import Event, derive_id
from mesh.core.run.budget import refuse_spend
from mesh.core.run.circuit_breaker import Breakers, open_until
from mesh.core.run.dead_letter import dead_request, drop_drafts, failure_id, letter_id, letter_redriven, refuse_redrive
from mesh.core.run.effects import Effect, Note
from mesh.core.run.lineage import Refusal, input_mark
from mesh.core.run.outputs import refuse_state
from mesh.core.run.routing import begin_task, deadline_timer, path_to, start_attempt
from mesh.core.run.state import Held, Run, Task
from mesh.core.topology.model import AgentSpec, Limits, Topology

REASON_CHARS_MAX = 200


def pause(run: Run, event: Event, effects: list[Effect]) -> None:
    """Pause the run until `resume`. The subject of the event is the reason."""
    if run.trouble.paused:
        effects.append(Note("already_paused", f"the run is paused already: {run.trouble.paused}", run.id))
        return
    why = event.subject[:REASON_CHARS_MAX] or "somebody paused it"
    run.trouble = run.trouble._replace(paused=why, paused_ms=event.at_ms)


def resume(run: Run, event: Event, topology: Topology, breakers: Breakers, effects: list[Effect]) -> None:
    """Start the tasks that waited; the deadline moves by the length of the pause."""
    if not run.trouble.paused:
        effects.append(Note("not_paused", "the run is not paused", run.id))
        return
    run.deadline_ms += max(0, event.at_ms - run.trouble.paused_ms)
    run.trouble = run.trouble._replace(paused="", paused_ms=0)
    effects.append(deadline_timer(run))
    for task in list(run.open.values()):
        if task.held is not None and not task.held.due_ms:
            start_attempt(run, task, task.held, event, topology, breakers, effects)


def redrive(run: Run, event: Event, topology: Topology, breakers: Breakers, effects: list[Effect]) -> None:
    """Redrive a dead letter of the run. An impossible redrive becomes a note or a dead letter again."""
    if event.id in run.trouble.redrives or event.id in run.trouble.denied:
        effects.append(Note("duplicate_redrive", f"redrive {event.id!r} came again", run.id))
        return
    letter = letter_redriven(run, event.id)
    dead = next(
        (task for task in run.trouble.dead if event.task_id == task.id or letter == failure_id(run, task)), None
    )
    if dead is None and (event.task_id or not _is_refusal(run, letter)):
        what = f"task {event.task_id!r} is no failure" if event.task_id else f"dead letter {letter!r} is no refusal"
        effects.append(Note("nothing_to_redrive", f"{what} of this run (any more)", run.id))
        return
    name = dead.agent if dead is not None else event.agent
    if dead is not None and dead.past.failed:
        name = dead.past.failed[0]  # the first agent of the fallback chain
    spec = topology.agents.get(name)
    if spec is None:
        text = f"no agent is called {name!r} in the topology of the run"
        effects.append(dead_request(event, "unknown_agent", text))
        return
    task = _task_of(run, event, spec, dead)
    refusal = _refuse(run, event, spec, task, topology.limits)
    if refusal is None and (run.trouble.paused or open_until(breakers, name, event.at_ms)):  # it would be held
        more_bytes = len(event.data) - _released_bytes(run, letter)
        refusal = refuse_state(run, more_bytes, task, topology.limits)
    if refusal is not None:
        effects.append(refuse_redrive(run, event, refusal))
        return
    _take_back(run, event, dead)
    drop_drafts(run, lambda draft: draft.letter == letter)
    if run.ending:
        _open_again(run, event, topology, effects)
    begin_task(run, task, Held(event.type, event.content_type, event.data, 0), event, topology, breakers, effects)


def _task_of(run: Run, event: Event, spec: AgentSpec, dead: Task | None) -> Task:
    """Build the task of a redrive: at the place of the dead task, or at the beginning of a path."""
    above, branch, inputs = ((), (), ()) if dead is None else (dead.path[:-1], dead.branch, dead.inputs)
    mark = input_mark(spec, event.type, event.data)
    if mark and mark not in inputs:
        inputs = (*inputs, mark)
    path = path_to(above, spec.name)
    return Task(derive_id(run.id, event.id), spec.name, len(path), path, branch, event.id, inputs=inputs)


def _refuse(run: Run, event: Event, spec: AgentSpec, task: Task, limits: Limits) -> Refusal | None:
    """Return why a redrive may not make its task, or None."""
    above, size = task.path[:-1], len(event.data)
    refusal = refuse_spend(run, spec, above, limits)
    if refusal is not None:
        return refusal
    if run.tasks >= limits.tasks_max:
        text = f"tasks: a redrive would bring the run to {run.tasks + 1} tasks, at most {limits.tasks_max}"
        return Refusal("tasks", spec.name, above, limits.tasks_max, run.tasks + 1, text)
    if size > limits.payload_bytes_max:
        text = f"payload: a redrive of {size} bytes, at most {limits.payload_bytes_max}"
        return Refusal("payload", spec.name, above, limits.payload_bytes_max, size, text)
    return None


def _released_bytes(run: Run, letter: str) -> int:
    """Return the payload bytes that the run releases when this letter is redriven."""
    held = sum(len(task.held.data) for task in run.open.values() if task.held) if run.ending else 0
    return held + sum(len(draft.data) for draft in run.drafts if draft.letter == letter)


def _is_refusal(run: Run, letter: str) -> bool:
    return any(letter == letter_id(run.id, number) for number in range(1, run.refused + 1))


def _take_back(run: Run, event: Event, dead: Task | None) -> None:
    trouble = run.trouble._replace(redrives=(*run.trouble.redrives, event.id))
    if dead is not None:
        trouble = trouble._replace(dead=tuple(task for task in trouble.dead if task.id != dead.id))
        run.failures = tuple(failure for failure in run.failures if failure.task_id != dead.id)
    run.trouble = trouble


def _open_again(run: Run, event: Event, topology: Topology, effects: list[Effect]) -> None:
    run.ending, run.ended_ms = "", 0
    run.starved = ()
    run.unrouted = tuple(fact for fact in run.unrouted if not fact.closing)
    run.state_bytes -= sum(len(task.held.data) for task in run.open.values() if task.held)
    run.open = {}  # what was in flight when it ended was charged and is gone
    run.deadline_ms = event.at_ms + topology.limits.deadline_ms
    run.trouble = run.trouble._replace(generation=run.trouble.generation + 1)
    effects.append(deadline_timer(run))
