"""decide(run, event, topology) → the next run, and what to do.

The rules of the orchestrator, in the order in which they are applied:

 1. Opening. The first request of a correlation id opens a run and sets its deadline; later requests join the run.
    A run ends once. An event for an unknown or ended run changes nothing: it becomes a note. A request for an ended
    run becomes a dead letter, since its payload would be lost.
 2. Matching. A result counts if its task is open, its attempt is the current one, and its agent is the one that the
    task was sent to. Depth, path and parent come from the task table. A message that claims others causes a note.
 3. Failures (`retry`). The usage of the attempt is charged. If the failure is retryable and the budget and the
    deadline allow it, the task waits for its next attempt. Otherwise the agent's fallback gets the input. Without a
    fallback the task becomes a dead letter and a failure of the run. An attempt that the run's deadline cut short is
    neither, because the deadline itself ends the run.
 4. Emissions. A request or a success emits its events: egress types leave the mesh, and types that agents subscribe
    to become tasks. An undeclared type, too many events or too many bytes refuse the whole emission. Too many tasks
    refuse all of its hops. Depth, cycle, visits and budget refuse one hop. Each refusal is remembered with its path
    and numbers, and is a dead letter; a passed deadline is none.
 5. Ending. When nothing is open the run ends with the first ending that applies:
      failed      a task failed for good
      stopped     something was refused, and there is no result
      partial     something was refused, a join starved, or more was used than the budget
      completed   none of these
    An unrouted event and a repeated input of a join count as refused. A passed deadline ends the run as stopped, a
    cancellation as cancelled; both end it at once, and open tasks are charged their reservations.
 6. Pausing. A paused run takes in results and begins nothing. An agent whose breaker is open gets no task: its tasks
    go to its fallback or wait. A redrive reopens a run where one of its tasks failed (`operator`).

Pure: the same run, event and topology give the same answer. The given run is not changed. Time is `event.at_ms`.
"""

from sys import intern

from mesh.core.protocol.event import BATCH, NO_USAGE, REDRIVEN, REQUESTED, Event, fingerprint
from mesh.core.run.budget import charge, close_reservation, find_overspent, reserve
from mesh.core.run.circuit_breaker import NO_BREAKERS, Breakers, open_until
from mesh.core.run.dead_letter import dead_request, record_refusal, redriven_refusals, refuse
from mesh.core.run.effects import Effect, Finish, Note, Schedule
from mesh.core.run.lineage import Refusal, format_path
from mesh.core.run.operator import pause, redrive, resume
from mesh.core.run.outputs import emissions, refuse_emissions
from mesh.core.run.retry import fall_back, handle_failure, refusal_notes
from mesh.core.run.routing import deadline_timer, dispatch, find_firings, publish_egress, retry_timer, start_attempt
from mesh.core.run.state import CANCELLED, COMPLETED, FAILED, PARTIAL, STOPPED, Run, Task
from mesh.core.run.unrouted import close_joins
from mesh.core.topology.model import Topology


def decide(
    run: Run | None, event: Event, topology: Topology, breakers: Breakers = NO_BREAKERS
) -> tuple[Run | None, list[Effect]]:
    """Apply the rules of this module. `run` None: unknown. Returns the run to keep and the effects, in order."""
    effects: list[Effect] = []
    opened = run is None
    if run is None:
        if event.kind != REQUESTED:
            return None, [answer_unknown(event)]
        run = _open(event, topology)
    elif run.ending and event.kind != REDRIVEN:
        return run, [answer_late(event, run.ending, run.requests)]
    else:
        run = run.copy()
    match event.kind:
        case "requested":
            _on_requested(run, event, topology, breakers, effects)
        case "succeeded":
            _on_succeeded(run, event, topology, breakers, effects)
        case "failed":
            if (task := _task_of(run, event, effects)) is not None:
                handle_failure(run, task, event, topology, breakers, effects)
        case "due":
            _due(run, event, topology, breakers, effects)
        case "cancelled":
            _end(run, event, CANCELLED, topology, effects)
        case "paused":
            pause(run, event, effects)
        case "resumed":
            resume(run, event, topology, breakers, effects)
        case "redriven":
            redrive(run, event, topology, breakers, effects)
        case _:
            effects.append(Note("unknown_kind", f"an event of kind {event.kind!r} changes no run", run.id))
    if not run.ending:
        if not run.open:
            _end(run, event, "", topology, effects)
        elif opened:
            effects.append(deadline_timer(run))
    return run, effects


def answer_unknown(event: Event) -> Effect:
    """Handle an event for an unknown run: one that was never opened, or that was forgotten."""
    if event.kind == REDRIVEN:
        text = "a redrive of a run that nobody opened, or that is not remembered any more; send it as a new one"
        return dead_request(event, "unknown_run", text)
    return Note("unknown_run", f"{event.kind} for an unknown run", event.run_id)


def answer_late(event: Event, ending: str, requests: tuple[str, ...]) -> Effect:
    """Handle an event for a run that ended; `requests` are those of the run."""
    if event.kind == REDRIVEN:
        return answer_unknown(event)
    if event.kind != REQUESTED:
        code = {"due": "late_timer", "cancelled": "already_terminal"}.get(event.kind, "late_result")
        return Note(code, f"{event.kind} for a run that ended {ending}", event.run_id)
    if event.id in requests[::2]:
        return _repeat_effect(event, requests)
    text = f"request {event.id!r} came for a run that had ended {ending}; send it under another correlation id"
    return dead_request(event, "already_terminal", text)


def _repeat_effect(event: Event, requests: tuple[str, ...]) -> Effect:
    first = requests[2 * requests[::2].index(event.id) + 1]
    now = fingerprint(event.data)
    if now == first:
        return Note("duplicate_request", f"request {event.id!r} came again", event.run_id)
    text = f"request {event.id!r} came again with another body ({now}); the first one ({first}) stands"
    return dead_request(event, "idempotency_conflict", text)


def _open(event: Event, topology: Topology) -> Run:
    deadline_ms = event.at_ms + topology.limits.deadline_ms
    if event.expiry_ms is not None:
        deadline_ms = min(deadline_ms, event.expiry_ms)
    type = intern(event.type) if event.type in topology.ingress else event.type  # one string for all runs
    subject = event.id if event.subject == event.id else event.subject  # one string, where they are equal
    trace, state = event.traceparent, event.tracestate
    run = Run(event.run_id, type, topology.digest, event.at_ms, deadline_ms, subject, trace, state)
    run.extensions = event.extensions
    return run


def _on_requested(run: Run, event: Event, topology: Topology, breakers: Breakers, effects: list[Effect]) -> None:
    if run.requests and event.id in run.roots:
        effects.append(_repeat_effect(event, run.requests))
        return
    refusal = _refuse_request(run, event, topology)
    if refusal is not None:
        effects.append(refuse(run, event, refusal, event.type, event.content_type, event.data))
    if len(run.requests) < 2 * topology.limits.tasks_max:
        run.requests = (*run.requests, event.id, fingerprint(event.data))
    if refusal is None:
        _release(run, event, Task(f"request:{event.id}", "", 0, (), (), event.cause_id), topology, breakers, effects)


def _refuse_request(run: Run, event: Event, topology: Topology) -> Refusal | None:
    if len(run.requests) >= 2 * topology.limits.tasks_max:
        limit = topology.limits.tasks_max
        text = f"requests: the run has heard {len(run.roots)} requests, as many as it may have tasks"
        return Refusal("requests", "", (), limit, limit + 1, text)
    if event.type not in topology.ingress:
        if event.topology and event.topology != topology.digest:
            decides = f"topology {topology.digest}, which decides this run, does not declare it"
            text = f"other_topology: topology {event.topology} admitted type {event.type!r}; {decides}"
            return Refusal("other_topology", "", (), 0, 0, text)
        known = ", ".join(sorted(topology.ingress)) or "none"
        text = f"unknown_type: no ingress topic declares {event.type!r}; declared: {known}"
        return Refusal("unknown_type", "", (), 0, 0, text)
    if event.content_type == BATCH:
        return Refusal("bad_batch", "", (), 0, 0, "bad_batch: a request is one event, not a batch of events")
    if event.expiry_ms is not None and event.expiry_ms <= event.at_ms:
        text = f"bad_deadline: it passed {event.at_ms - event.expiry_ms} ms before the request arrived"
        return Refusal("bad_deadline", "", (), event.expiry_ms, event.at_ms, text)
    return None


def _on_succeeded(run: Run, event: Event, topology: Topology, breakers: Breakers, effects: list[Effect]) -> None:
    task = _task_of(run, event, effects)
    if task is not None:
        excess = charge(run, topology.agents[task.agent], event.usage, topology.limits)
        if excess is not None:
            effects.append(excess)
        del run.open[task.id]
        _release(run, event, task, topology, breakers, effects)


def _release(
    run: Run, event: Event, origin: Task, topology: Topology, breakers: Breakers, effects: list[Effect]
) -> None:
    """Emit the events of a request or a result, all of them or none."""
    refusal: Refusal | None
    try:
        emitted = emissions(event, origin)
        refusal = refuse_emissions(run, emitted, origin, topology)
    except ValueError as error:
        emitted = []
        text = f"bad_batch: {format_path(origin.path)} answered with a batch that is none: {error}"
        refusal = Refusal("bad_batch", origin.agent, origin.path, 0, 0, text)
    if refusal is not None:
        effects.append(refuse(run, event, refusal, event.type, event.content_type, event.data))
        return
    publish_egress(run, event, emitted, origin, topology, effects)
    wanted = find_firings(run, emitted, origin, topology, effects)
    if wanted:
        dispatch(run, event, wanted, origin, topology, breakers, effects)


def _due(run: Run, event: Event, topology: Topology, breakers: Breakers, effects: list[Effect]) -> None:
    if not event.task_id:
        _deadline(run, event, topology, effects)
        return
    task = run.open.get(event.task_id)
    held = None if task is None else task.held
    if task is None or held is None or not held.due_ms or task.attempt != event.attempt:
        effects.append(Note("late_timer", f"timer {event.id!r} has no task left to start", run.id))
    elif event.at_ms < held.due_ms:
        effects.append(retry_timer(run, task, held.due_ms))
    elif open_until(breakers, task.agent, event.at_ms) and topology.agents[task.agent].fallback:
        close_reservation(run, topology.agents[task.agent], NO_USAGE)
        refused: list[Refusal] = []
        if fall_back(run, task, held, event, topology, breakers, effects, refused):
            run.state_bytes -= len(held.data)
        else:
            effects += refusal_notes(run, refused)
            reserve(run, topology.agents[task.agent])
            start_attempt(run, task, held, event, topology, breakers, effects)
    else:
        start_attempt(run, task, held, event, topology, breakers, effects)


def _deadline(run: Run, event: Event, topology: Topology, effects: list[Effect]) -> None:
    if event.at_ms < run.deadline_ms:
        effects.append(deadline_timer(run))
        return
    if run.trouble.paused and event.at_ms < (until_ms := run.trouble.paused_ms + topology.limits.pause_ms):
        effects.append(Schedule(run.id, f"{run.id}:deadline", until_ms))
        return
    took, allowed = event.at_ms - run.opened_ms, run.deadline_ms - run.opened_ms
    waiting = ", ".join(sorted({task.agent for task in run.open.values()}))
    text = f"deadline: {took} ms after its request the run still waits for {waiting}; at most {allowed}"
    if run.trouble.paused:
        paused, allowed = event.at_ms - run.trouble.paused_ms, topology.limits.pause_ms
        text = f"deadline: the run was paused for {paused} ms ({run.trouble.paused}); at most {allowed}"
    record_refusal(run, Refusal("deadline", "", (), allowed, took, text))
    _end(run, event, STOPPED, topology, effects)


def _task_of(run: Run, event: Event, effects: list[Effect]) -> Task | None:
    """Find the open task that a result answers; None, with a note that says why, if the result does not count."""
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
        claim = f"depth {event.depth} and path {format_path(event.path)}"
        text = f"{task.agent!r} claims {claim}; depth {task.depth} and path {format_path(task.path)} stand"
        effects.append(Note("claimed_lineage", text, run.id, security=True))
    return task


def _ending(run: Run) -> str:
    """Determine the ending of a run in which nothing is open."""
    if run.failures:
        return FAILED
    lost = run.unrouted or (run.refused and run.refused > len(redriven_refusals(run)))
    if lost and not run.results:
        return STOPPED
    return PARTIAL if lost or run.starved or run.overspent else COMPLETED


def _end(run: Run, event: Event, ending: str, topology: Topology, effects: list[Effect]) -> None:
    """End the run with its open tasks; an empty `ending` is determined from the state of the run."""
    for task in run.open.values():
        close_reservation(run, topology.agents[task.agent], NO_USAGE if task.held else None)
    if run.usd_micros or run.tokens or run.beyond is not NO_USAGE:
        run.overspent = find_overspent(run, topology.limits)
    if run.joins:
        close_joins(run, topology, cut_short=bool(ending))
    run.ending = ending or _ending(run)
    run.ended_ms = event.at_ms
    effects.append(Finish(run, event.id, event.at_ms))
