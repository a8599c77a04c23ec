"""From emissions to tasks: which agents fire, with which input, and whether each hop is allowed.

There are two steps. `find_firings` looks up every hop; `dispatch` checks the limits and makes the tasks. The order
is that of the emissions and of the routing rows, so ids made from positions are the same in every fold.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from mesh.core.expression.field_path import Path, parse_path
from mesh.core.protocol.event import BATCH, EGRESS, NO_USAGE, TASK, Event, Part, derive_id, encode_batch, parse_json
from mesh.core.protocol.partitioner import key_of
from mesh.core.run.budget import close_reservation, refuse_spend, reserve
from mesh.core.run.circuit_breaker import Breakers, next_fallback, open_until
from mesh.core.run.dead_letter import keep_draft, refuse
from mesh.core.run.effects import Effect, Note, PublishEvent, PublishTask, Schedule
from mesh.core.run.join import accepts, arrive, slot_bytes
from mesh.core.run.lineage import Refusal, format_path, input_mark, refuse_hop
from mesh.core.run.outputs import Emission, refuse_state
from mesh.core.run.state import NO_PAST, Arrival, Branch, Held, Past, Result, Run, Task
from mesh.core.run.unrouted import note_declined, note_repeated, note_untaken
from mesh.core.topology.model import AgentSpec, Row, Topology

JOIN_TYPE = "mesh.join"
"""Type of a task whose value holds several events."""


Given = Emission | Held
"""Input of a task. Both forms begin with type, content type and payload."""
Firing = tuple[AgentSpec, Emission, tuple[str, ...], tuple[str, ...]]
"""A wanted hop: the agent, its input, and the path and input marks before it."""
Refusing = tuple[AgentSpec, Mapping[str, Arrival], Branch]
"""A join on a cycle that is complete and whose `when` is false: the agent, its inputs, the branch."""


@lru_cache(maxsize=1024)
def field(path: str) -> Path:
    """A declared field path, parsed once."""
    return parse_path(path)


@lru_cache(maxsize=4_096)
def path_to(path: tuple[str, ...], agent: str) -> tuple[str, ...]:
    """Return a path with one more hop. Equal paths are shared between runs."""
    return (*path, agent)


def publish_egress(
    run: Run, event: Event, emitted: Sequence[Emission], origin: Task, topology: Topology, effects: list[Effect]
) -> None:
    """Publish events of egress types, and keep them for the outcome. Their ids are task id and position."""
    for n, (type, content_type, data, _) in enumerate(emitted):
        rule = topology.egress.get(type)
        if rule is None:
            continue
        id = f"{origin.id}.{n}" if origin.agent else derive_id(run.id, origin.id, "egress", n)
        out = Event(
            id,
            f"/agents/{origin.agent}" if origin.agent else event.source,
            type,
            EGRESS,
            run.id,
            data,
            event.at_ms,
            event.id,
            "",
            "",
            0,
            (),
            1,
            content_type,
            "",
            run.subject,
            None,
            event.traceparent or run.traceparent,
            event.tracestate or run.tracestate,
            NO_USAGE,
            None,
            "",
            "",
            event.extensions or run.extensions,
        )
        key = None if rule.key is None else _key_in(data, rule.key)
        effects.append(PublishEvent(out, rule.name, key))
        run.results = (*run.results, Result(id, type, origin.agent, data))
        run.state_bytes += len(data)


def find_firings(
    run: Run, emitted: Sequence[Emission], origin: Task, topology: Topology, effects: list[Effect]
) -> list[Firing]:
    """Find every hop of the emissions. Inputs of joins and unrouted events are kept in `run`."""
    found: list[Firing] = []
    for emission in emitted:
        type, _, data, _ = emission
        rows, taken = topology.rows.get(type), type in topology.egress
        if rows is None:
            if not taken:
                note_untaken(run, emission, origin.agent, ())
            continue
        refused: list[Refusing] = []
        for row in rows:
            if row.join:
                found.extend(_join_firings(run, row, emission, origin, effects, refused))
                taken = True
            elif row.agent.when is None or row.agent.when.holds({type: parse_json(data)}):
                found.append((row.agent, emission, origin.path, origin.inputs))
                taken = True
        if not taken:
            note_untaken(run, emission, origin.agent, rows)
        for spec, gathered, branch in refused:
            note_declined(run, spec, gathered, branch, topology)
    return found


def _join_firings(
    run: Run, row: Row, emission: Emission, origin: Task, effects: list[Effect], refused: list[Refusing]
) -> Iterator[Firing]:
    spec, needs = row.agent, row.join
    type, _, data, branch = emission
    slots = run.joins.get(spec.name, {})
    if not accepts(slots, type, branch):
        text = f"{format_path(origin.path)} emitted {type!r}, which {spec.name!r} has got already and joins once"
        effects.append(Note("join_repeated", text, run.id))
        note_repeated(run, spec, type, origin.agent)
        return
    arrival = Arrival(data, origin.depth, origin.path, origin.inputs)
    after, ready = arrive(slots, needs, type, branch, arrival, again=spec.cyclic)
    run.joins = {**run.joins, spec.name: after}
    run.state_bytes += slot_bytes(after) - slot_bytes(slots) if spec.cyclic else len(data)
    for below, inputs in ready:
        gathered = dict(zip(needs, inputs, strict=True))
        if spec.when is None or spec.when.holds({need: parse_json(got.data) for need, got in gathered.items()}):
            parts = [Part(need, got.data) for need, got in gathered.items()]
            value = encode_batch(parts, source=f"/runs/{run.id}", event_id=spec.name)
            deepest = max(inputs, key=lambda got: got.depth)
            marks = tuple(dict.fromkeys(mark for got in inputs for mark in got.inputs))
            yield spec, (JOIN_TYPE, BATCH, value, below), deepest.path, marks
        else:
            after[below] = after[below]._replace(declined=True)
            if spec.cyclic:  # the inputs of other joins are judged when the run ends
                refused.append((spec, gathered, below))


def dispatch(
    run: Run,
    event: Event,
    wanted: Sequence[Firing],
    origin: Task,
    topology: Topology,
    breakers: Breakers,
    effects: list[Effect],
) -> None:
    """Make a task of each allowed hop and refuse the others. Too many tasks for the run refuse all hops."""
    limits = topology.limits
    tasks = run.tasks + len(wanted)
    if tasks > limits.tasks_max:
        text = f"tasks: {format_path(origin.path)} would bring the run to {tasks} tasks, at most {limits.tasks_max}"
        refusal = Refusal("tasks", origin.agent, origin.path, limits.tasks_max, tasks, text)
        effects.append(refuse(run, event, refusal, event.type, event.content_type, event.data))
        for spec, given, _, _ in wanted:
            if spec.cyclic:
                keep_draft(run, spec.name, given[0], given[2], limits.state_bytes_max)
        return
    for ordinal, (spec, given, path, inputs) in enumerate(wanted):
        type, content_type, data, branch = given
        past = NO_PAST
        if breakers and spec.fallback and open_until(breakers, spec.name, event.at_ms):
            past = Past((spec.name,))
            spec = topology.agents[next_fallback(past.failed, topology, breakers, event.at_ms) or spec.name]
        mark = input_mark(spec, type, data) if spec.cyclic else ""
        visits = run.visits.get(spec.name, 0) + 1
        hop_refusal = refuse_hop(spec, path, visits, mark, inputs, limits) or refuse_spend(run, spec, path, limits)
        if hop_refusal is not None:
            effects.append(refuse(run, event, hop_refusal, type, content_type, data))
            if spec.cyclic:
                keep_draft(run, spec.name, type, data, limits.state_bytes_max)
            continue
        if mark:
            inputs = (*inputs, mark)
        id = derive_id(run.id, origin.id, ordinal)
        task = Task(id, spec.name, len(path) + 1, path_to(path, spec.name), branch, event.id, 1, inputs, None, past)
        if spec.visits_max is not None or spec.cyclic:
            run.visits = {**run.visits, spec.name: visits}
        begin_task(run, task, given, event, topology, breakers, effects)


def begin_task(
    run: Run, task: Task, given: Given, event: Event, topology: Topology, breakers: Breakers, effects: list[Effect]
) -> None:
    """Add a task to the run, reserve its budget and start it. The caller has checked the limits."""
    run.open[task.id] = task
    run.tasks += 1
    reserve(run, topology.agents[task.agent])
    start_attempt(run, task, given, event, topology, breakers, effects)


def start_attempt(
    run: Run, task: Task, given: Given, event: Event, topology: Topology, breakers: Breakers, effects: list[Effect]
) -> None:
    """Send one attempt to its agent, or keep it while the run is paused or the agent's breaker is open.

    An input that exceeds the state limit of the run is refused. `event` is the event under decision.
    """
    if task.held is not None:
        run.state_bytes -= len(task.held.data)
        run.open[task.id] = task = replace(task, held=None)
    type, content_type, data, _ = given
    until_ms = open_until(breakers, task.agent, event.at_ms) if breakers else 0
    if not run.trouble.paused and not until_ms:
        effects.append(publish(run, task, type, content_type, data, event.at_ms, topology))
        return
    refusal = refuse_state(run, len(data), task, topology.limits)
    if refusal is not None:
        close_reservation(run, topology.agents[task.agent], NO_USAGE)
        run.open.pop(task.id, None)
        run.tasks -= task.attempt == 1  # it was never sent
        effects.append(refuse(run, event, refusal, type, content_type, data))
        return
    run.state_bytes += len(data)
    held = Held(type, content_type, data, 0 if run.trouble.paused else until_ms)
    run.open[task.id] = task = replace(task, held=held)
    if not run.trouble.paused:
        effects.append(retry_timer(run, task, until_ms))


def publish(
    run: Run, task: Task, type: str, content_type: str, data: bytes, at_ms: int, topology: Topology
) -> PublishTask:
    """Build the effect that sends one attempt of a task to its agent."""
    event = Event(
        f"{task.id}:{task.attempt}",
        f"/mesh/{topology.name}",
        type,
        TASK,
        run.id,
        data,
        at_ms,
        task.cause_id,
        task.agent,
        task.id,
        task.depth,
        task.path,
        task.attempt,
        content_type,
        task.past.time,
        run.subject,
        run.deadline_ms,
        run.traceparent,
        run.tracestate,
    )
    path = topology.agents[task.agent].key
    return PublishTask(event, task.id.encode() if path is None else _ordering_key(path, event))


def schedule_retry(run: Run, task: Task, event: Event, due_ms: int) -> Schedule:
    """Keep the input of a failed task, which the failure carried, until the next attempt is due."""
    attempt = task.attempt + 1
    held = Held(event.type, event.content_type, event.data, due_ms)
    run.open[task.id] = replace(task, attempt=attempt, held=held)
    run.state_bytes += len(event.data)
    return retry_timer(run, run.open[task.id], due_ms)


def retry_timer(run: Run, task: Task, due_ms: int) -> Schedule:
    """Return the timer that starts a waiting task."""
    return Schedule(run.id, f"{task.id}:{task.attempt}:due", due_ms, task.id, task.attempt)


def deadline_timer(run: Run) -> Schedule:
    """Return the timer that ends a run."""
    return Schedule(run.id, f"{run.id}:deadline", run.deadline_ms)


def _ordering_key(path: str, task: Event) -> bytes:
    run_key = task.run_id.encode()
    try:
        keys = [_key_in(part.data, path) for part in task.parts()]
    except ValueError:  # the input of a retry is as its agent sent it back, and may be no batch any more
        return run_key
    return next((key for key in keys if key is not None), run_key)


def _key_in(data: bytes, path: str) -> bytes | None:
    """Return the declared field of a payload as a record key."""
    return key_of(field(path).value(parse_json(data)))
