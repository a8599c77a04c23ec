"""From what was emitted to what may happen next: which agents fire, with what, and whether each hop is allowed.

Two steps, so that a result is let through whole or refused whole: `firings` looks everything up, then `dispatch`
checks the limits of the run and each hop and makes the tasks. Order is that of the parts and of the rows, so ids
made from positions are the same whenever decided again.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from mesh.core.budget import refuse_spend, reserve
from mesh.core.condition import Path, parse_path
from mesh.core.effect import DeadLetter, Effect, PublishEvent, PublishTask, Schedule
from mesh.core.event import BATCH, EGRESS, JSON, TASK, Event, Part, batch, derive, fingerprint, parsed
from mesh.core.join import arrive
from mesh.core.lineage import Refusal, refuse_hop
from mesh.core.run import Arrival, Branch, Held, Result, Run, Task
from mesh.core.topology import AgentSpec, Row, Topology

JOIN_TYPE = "mesh.join"
"""Type of a task whose value holds several events."""


class Origin(NamedTuple):
    """Where parts come from: the task that emitted them, or the request (depth 0, empty path)."""

    depth: int
    path: tuple[str, ...]
    branch: Branch
    inputs: tuple[str, ...]
    agent: str
    mark: str
    """Names a new branch where the parts fan out."""


class Firing(NamedTuple):
    """A hop that is wanted."""

    spec: AgentSpec
    type: str
    content_type: str
    data: bytes
    depth: int
    path: tuple[str, ...]
    branch: Branch
    inputs: tuple[str, ...]


@lru_cache(maxsize=1024)
def field(path: str) -> Path:
    """A declared field path, parsed once."""
    return parse_path(path)


def firings(run: Run, parts: Sequence[Part], origin: Origin, topology: Topology) -> list[Firing]:
    """Every hop that the parts ask for; arrivals at joins are noted in `run`."""
    found: list[Firing] = []
    types = [part.type for part in parts]
    for n, part in enumerate(parts):
        branch = origin.branch
        if types.count(part.type) > 1:
            branch = (*branch, f"{origin.mark}.{n}")
        for row in topology.rows.get(part.type, ()):
            if row.join:
                found.extend(_joined(run, row, part, branch, origin))
            else:
                if row.agent.when is not None and not row.agent.when.holds({part.type: parsed(part.data)}):
                    continue
                depth = origin.depth + 1
                found.append(Firing(row.agent, part.type, JSON, part.data, depth, origin.path, branch, origin.inputs))
    return found


def dispatch(run: Run, event: Event, wanted: Sequence[Firing], topology: Topology, effects: list[Effect]) -> None:
    """Make a task of each allowed firing; refuse the others, each by name."""
    limits = topology.limits
    if len(wanted) + run.tasks > limits.tasks_max:
        path = wanted[0].path
        actual = run.tasks + len(wanted)
        way = " > ".join(path) or "the request"
        text = f"tasks: {way} would bring the run to {actual} tasks, at most {limits.tasks_max}"
        refuse(run, event, Refusal("tasks", "", path, limits.tasks_max, actual, text), event.data, effects)
        return
    for ordinal, firing in enumerate(wanted):
        spec = firing.spec
        mark = f"{spec.name}:{fingerprint(firing.data)}" if spec.cyclic else ""
        visits = run.visits.get(spec.name, 0) + 1
        refusal = refuse_hop(spec, firing.path, firing.depth, visits, mark, firing.inputs, limits) or refuse_spend(
            run, spec, firing.path, limits
        )
        if refusal is not None:
            refuse(run, event, refusal, firing.data, effects)
            continue
        task = Task(
            derive(run.id, event.id, ordinal),
            spec.name,
            firing.depth,
            (*firing.path, spec.name),
            firing.branch,
            event.id,
            inputs=(*firing.inputs, mark) if mark else firing.inputs,
        )
        run.open[task.id] = task
        run.visits[spec.name] = visits
        run.tasks += 1
        reserve(run, spec)
        effects.append(publish(run, task, firing.type, firing.content_type, firing.data, event.at_ms, topology))


def publish(
    run: Run, task: Task, type: str, content_type: str, data: bytes, at_ms: int, topology: Topology
) -> PublishTask:
    """The record that hands one attempt of a task to its agent."""
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
        subject=run.subject,
        expiry_ms=run.deadline_ms,
        traceparent=run.traceparent,
        tracestate=run.tracestate,
    )
    return PublishTask(event, _ordering_key(topology.agents[task.agent], event))


def leave(run: Run, event: Event, parts: Sequence[Part], topology: Topology, effects: list[Effect]) -> None:
    """Let parts of egress types out, and keep them for the outcome."""
    for n, part in enumerate(parts):
        rule = topology.egress.get(part.type)
        if rule is None:
            continue
        id = derive(run.id, event.id, "egress", n)
        key = None if rule.key is None else field(rule.key).value(parsed(part.data))
        out = Event(
            id,
            f"/agents/{event.agent}" if event.agent else event.source,
            part.type,
            EGRESS,
            run.id,
            part.data,
            event.at_ms,
            event.id,
            subject=run.subject,
            traceparent=event.traceparent or run.traceparent,
            tracestate=event.tracestate or run.tracestate,
        )
        effects.append(PublishEvent(out, rule.name, None if key is None else str(key).encode()))
        run.results = (*run.results, Result(id, part.type, event.agent, part.data))
        run.state_bytes += len(part.data)


def wait(run: Run, task: Task, event: Event, due_ms: int, effects: list[Effect]) -> None:
    """Keep a failed task's input until its next attempt is due."""
    held = Held(event.type, event.content_type, event.data, due_ms)
    run.open[task.id] = task._replace(attempt=task.attempt + 1, held=held)
    run.state_bytes += len(event.data)
    effects.append(Schedule(run.id, f"{task.id}:{task.attempt + 1}:due", due_ms, task.id, task.attempt + 1))


def refuse(run: Run, event: Event, refusal: Refusal, data: bytes, effects: list[Effect]) -> None:
    """Remember a refusal for the outcome, and send what was refused to the dead letters."""
    run.refusals = (*run.refusals, refusal)
    effects.append(
        DeadLetter(
            derive(run.id, event.id, refusal.code, len(run.refusals)),
            refusal.code,
            refusal.message,
            data,
            run.id.encode(),
            (
                ("ce_type", event.type.encode()),
                ("content-type", event.content_type.encode()),
                ("ce_correlationid", run.id.encode()),
                ("ce_causationid", event.id.encode()),
            ),
            event.origin,
            run.id,
            refusal.agent,
        )
    )


def _joined(run: Run, row: Row, part: Part, branch: Branch, origin: Origin) -> list[Firing]:
    slots = run.joins.setdefault(row.agent.name, {})
    arrival = Arrival(part.data, origin.depth, origin.path, origin.inputs)
    found = []
    for where, inputs in arrive(slots, row.join, part.type, branch, arrival):
        when = row.agent.when
        if when and not when.holds({type: parsed(a.data) for type, a in zip(row.join, inputs, strict=True)}):
            continue
        deepest = max(inputs, key=lambda a: a.depth)
        parts = [Part(type, a.data) for type, a in zip(row.join, inputs, strict=True)]
        data = batch(parts, source=f"/runs/{run.id}", event_id=row.agent.name)
        marks = tuple(dict.fromkeys(mark for a in inputs for mark in a.inputs))
        found.append(Firing(row.agent, JOIN_TYPE, BATCH, data, deepest.depth + 1, deepest.path, where, marks))
    return found


def _ordering_key(spec: AgentSpec, task: Event) -> bytes:
    if spec.key is not None:
        path = field(spec.key)
        for part in task.parts():
            value = path.value(parsed(part.data))
            if value is not None:
                return str(value).encode()
    return task.run_id.encode()
