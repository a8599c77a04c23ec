"""decide(run, event, topology) → the next run, and what to do.

Rules, in the order in which they are applied:

 1. A run is opened by its first request and ends once. What comes for a run that ended, or that nobody opened,
    changes nothing and is noted.
 2. A result counts if its task is open, its attempt is the current one and its agent is the one that was asked.
    Depth, path and parent are those of the task table, whatever the message says; a difference is noted.
 3. What an attempt used is charged. A failure that may be repeated waits for its next attempt; one that may not is
    a dead letter and a failure of the run.
 4. A success lets its parts go: egress types leave the mesh, types that somebody hears become tasks. Undeclared
    types, too many parts or too many bytes refuse the whole result; depth, cycle, visits and budget refuse a hop.
    A refusal is remembered with path and numbers.
 5. When nothing is open the run ends: failed if a task failed for good; else, with a refusal or a starved join,
    partial if there are results and stopped if there are none; else completed. A passed deadline stops it at once.

Pure: same run, event and topology, same answer; the run that was handed in is not changed. Time is `event.at_ms`.
"""

from mesh.core.backoff import delay_ms
from mesh.core.budget import settle
from mesh.core.dispatch import Origin, dispatch, firings, leave, publish, refuse, wait
from mesh.core.effect import DeadLetter, Effect, Finish, Note, Schedule
from mesh.core.event import REQUESTED, Event, Fault, derive, fingerprint
from mesh.core.join import starved
from mesh.core.lineage import Refusal
from mesh.core.run import CANCELLED, COMPLETED, FAILED, PARTIAL, STOPPED, Failure, Run, Task
from mesh.core.topology import Topology


def decide(run: Run | None, event: Event, topology: Topology) -> tuple[Run | None, list[Effect]]:
    """See the module. `run` None: nobody opened it. Answers the run to keep and the effects, in order."""
    effects: list[Effect] = []
    if run is None:
        if event.kind != REQUESTED:
            return None, [Note("unknown_run", f"{event.kind} for a run that nobody opened", event.run_id)]
        run = _open(event, topology, effects)
    elif run.ending:
        return run, [Note("already_terminal", f"{event.kind} for a run that ended {run.ending}", run.id)]
    else:
        run = run.copy()
    match event.kind:
        case "requested":
            _requested(run, event, topology, effects)
        case "succeeded":
            _succeeded(run, event, topology, effects)
        case "failed":
            _failed(run, event, topology, effects)
        case "due":
            _due(run, event, topology, effects)
        case "cancelled":
            _end(run, event, CANCELLED, effects)
        case _:
            effects.append(Note("unknown_kind", f"an event of kind {event.kind!r} changes no run", run.id))
    if not run.open and not run.ending:
        _end(run, event, _ending(run, topology), effects)
    return run, effects


def _open(event: Event, topology: Topology, effects: list[Effect]) -> Run:
    deadline_ms = event.at_ms + topology.limits.deadline_ms
    if event.expiry_ms is not None:
        deadline_ms = min(deadline_ms, event.expiry_ms)
    run = Run(event.run_id, type=event.type, topology=topology.digest, opened_ms=event.at_ms, deadline_ms=deadline_ms)
    run.subject = event.subject
    run.body = fingerprint(event.data)
    run.traceparent, run.tracestate = event.traceparent, event.tracestate
    effects.append(Schedule(run.id, f"{run.id}:deadline", deadline_ms))
    return run


def _requested(run: Run, event: Event, topology: Topology, effects: list[Effect]) -> None:
    if event.id in run.roots:
        if event.id == run.roots[0] and fingerprint(event.data) != run.body:
            text = f"request {event.id!r} came again with another body; the first one ({run.body}) stands"
            effects.append(Note("idempotency_conflict", text, run.id))
        else:
            effects.append(Note("duplicate_request", f"request {event.id!r} came again", run.id))
        return
    run.roots = (*run.roots, event.id)
    if event.type not in topology.ingress:
        known = ", ".join(sorted(topology.ingress))
        text = f"unknown_type: no ingress topic declares {event.type!r}; declared: {known}"
        refuse(run, event, Refusal("unknown_type", "", (), 0, 0, text), event.data, effects)
    elif event.expiry_ms is not None and event.expiry_ms <= event.at_ms:
        text = f"bad_deadline: it passed {event.at_ms - event.expiry_ms} ms before the request arrived"
        refuse(run, event, Refusal("bad_deadline", "", (), event.expiry_ms, event.at_ms, text), event.data, effects)
    else:
        _release(run, event, Origin(0, (), (), (), "", run.id[:12]), topology, effects)


def _succeeded(run: Run, event: Event, topology: Topology, effects: list[Effect]) -> None:
    task = _task_of(run, event, effects)
    if task is None:
        return
    settle(run, topology.agents[task.agent], event.usage, ended=True)
    del run.open[task.id]
    _release(
        run, event, Origin(task.depth, task.path, task.branch, task.inputs, task.agent, task.id[:12]), topology, effects
    )


def _release(run: Run, event: Event, origin: Origin, topology: Topology, effects: list[Effect]) -> None:
    """Let the parts of a request or a result go, all of them or none."""
    try:
        parts = event.parts()
    except ValueError as error:
        text = f"bad_batch: {' > '.join(origin.path)} answered with a batch that is none: {error}"
        refuse(run, event, Refusal("bad_batch", origin.agent, origin.path, 0, 0, text), event.data, effects)
        return
    limits = topology.limits
    way = " > ".join(origin.path) or "the request"
    refusal = None
    declared = topology.agents[origin.agent].emits if origin.agent else None
    undeclared = [] if declared is None else [p.type for p in parts if p.type not in declared]
    if undeclared:
        text = f"undeclared_type: {way} emitted {undeclared[0]!r}, but declares only {', '.join(declared or ())}"
        refusal = Refusal("undeclared_type", origin.agent, origin.path, 0, len(undeclared), text)
    elif len(parts) > limits.fanout_max:
        text = f"fanout: {way} emitted {len(parts)} events at once, at most {limits.fanout_max}"
        refusal = Refusal("fanout", origin.agent, origin.path, limits.fanout_max, len(parts), text)
    else:
        largest = max((len(p.data) for p in parts), default=0)
        held = run.state_bytes + len(event.data)
        if largest > limits.payload_bytes_max:
            text = f"payload: {way} emitted a payload of {largest} bytes, at most {limits.payload_bytes_max}"
            refusal = Refusal("payload", origin.agent, origin.path, limits.payload_bytes_max, largest, text)
        elif held > limits.state_bytes_max:
            text = f"state: {way} would bring the run to {held} bytes held, at most {limits.state_bytes_max}"
            refusal = Refusal("state", origin.agent, origin.path, limits.state_bytes_max, held, text)
    if refusal is not None:
        refuse(run, event, refusal, event.data, effects)
        return
    leave(run, event, parts, topology, effects)
    wanted = firings(run, parts, origin, topology)
    if wanted:
        dispatch(run, event, wanted, topology, effects)


def _failed(run: Run, event: Event, topology: Topology, effects: list[Effect]) -> None:
    task = _task_of(run, event, effects)
    if task is None:
        return
    spec = topology.agents[task.agent]
    fault = event.fault or Fault("unknown", "the failure came without a reason", retryable=False)
    again = fault.retryable and task.attempt < spec.retry.attempts_max
    settle(run, spec, event.usage, ended=not again)
    if again:
        due_ms = event.at_ms + delay_ms(spec.retry, task.attempt, seed=task.id)
        wait(run, task, event, due_ms, effects)
        return
    del run.open[task.id]
    run.failures = (*run.failures, Failure(task.agent, task.id, task.attempt, fault.code, fault.message, task.path))
    effects.append(
        DeadLetter(
            derive(run.id, task.id, "failed"),
            fault.code,
            fault.message,
            event.data,
            run.id.encode(),
            (
                ("ce_specversion", b"1.0"),
                ("ce_id", f"{task.id}:{task.attempt}".encode()),
                ("ce_source", f"/mesh/{topology.name}".encode()),
                ("ce_type", event.type.encode()),
                ("content-type", event.content_type.encode()),
                ("ce_correlationid", run.id.encode()),
                ("ce_causationid", task.cause_id.encode()),
            ),
            event.origin,
            run.id,
            task.agent,
            task.id,
            task.attempt,
            fault.cls,
            fault.stack,
        )
    )


def _due(run: Run, event: Event, topology: Topology, effects: list[Effect]) -> None:
    if not event.task_id:
        if event.at_ms < run.deadline_ms:
            effects.append(Schedule(run.id, event.id, run.deadline_ms))
            return
        took = event.at_ms - run.opened_ms
        waiting = ", ".join(sorted({task.agent for task in run.open.values()}))
        text = f"deadline: {took} ms after its request the run still waits for {waiting}"
        allowed = run.deadline_ms - run.opened_ms
        run.refusals = (*run.refusals, Refusal("deadline", "", (), allowed, took, text))
        _end(run, event, STOPPED, effects)
        return
    task = run.open.get(event.task_id)
    if task is None or task.held is None or task.attempt != event.attempt:
        effects.append(Note("late_timer", f"timer {event.id!r} has nothing left to wake", run.id))
        return
    held = task.held
    run.open[task.id] = task = task._replace(held=None)
    run.state_bytes -= len(held.data)
    effects.append(publish(run, task, held.type, held.content_type, held.data, event.at_ms, topology))


def _task_of(run: Run, event: Event, effects: list[Effect]) -> Task | None:
    """The open task that a result answers, or None with a note why it counts for nothing."""
    task = run.open.get(event.task_id)
    if task is None:
        effects.append(Note("unknown_task", f"{event.kind} of task {event.task_id!r}, which is not open", run.id))
        return None
    if event.agent != task.agent:
        text = f"{event.agent!r} answered task {task.id}, which is {task.agent!r}'s"
        effects.append(Note("wrong_agent", text, run.id, security=True))
        return None
    if event.attempt != task.attempt or task.held is not None:
        text = f"{event.kind} of attempt {event.attempt} of task {task.id}, now at {task.attempt}"
        effects.append(Note("late_result", text, run.id))
        return None
    if event.depth != task.depth or event.path != task.path:
        text = f"{task.agent!r} claims depth {event.depth} and path {' > '.join(event.path)}; the table stands"
        effects.append(Note("claimed_lineage", text, run.id, security=True))
    return task


def _ending(run: Run, topology: Topology) -> str:
    for name, slots in run.joins.items():
        run.starved = (*run.starved, *starved(name, slots, topology.agents[name].on))
    if run.failures:
        return FAILED
    if run.refusals or run.starved:
        return PARTIAL if run.results or not run.refusals else STOPPED
    return COMPLETED


def _end(run: Run, event: Event, ending: str, effects: list[Effect]) -> None:
    run.ending = ending
    run.ended_ms = event.at_ms
    effects.append(Finish(run, derive(run.id, "outcome"), event.id, event.at_ms))
