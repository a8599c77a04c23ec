"""Emissions of a request or a result, each with its branch; and why they are refused.

A result is accepted whole or refused whole, so that no limit cuts it at an arbitrary place.
"""

from collections import Counter
from collections.abc import Sequence

from mesh.core.protocol.event import BATCH, JSON, Event
from mesh.core.run.join import accepts
from mesh.core.run.lineage import Refusal, format_path
from mesh.core.run.state import Branch, Run, Task
from mesh.core.topology.model import Limits, Topology

MARK_CHARS = 16

Emission = tuple[str, str, bytes, Branch]
"""Type, content type and payload of one emitted event, and its branch."""


def emissions(event: Event, origin: Task) -> list[Emission]:
    """Return the events of a request or a result. Raises ValueError for an invalid batch.

    Several of one type are a fan-out: each goes on in a branch of its own, named for the task and its position.
    """
    if event.content_type != BATCH:
        return [(event.type, event.content_type, event.data, origin.branch)]
    parts = event.parts()
    times = Counter(part.type for part in parts)
    mark = origin.id[:MARK_CHARS]
    return [
        (type, JSON, data, (*origin.branch, f"{mark}.{n}") if times[type] > 1 else origin.branch)
        for n, (type, data) in enumerate(parts)
    ]


def refuse_emissions(run: Run, emitted: Sequence[Emission], origin: Task, topology: Topology) -> Refusal | None:
    """Return why the whole emission is refused, or None."""
    limits = topology.limits
    if len(emitted) > limits.fanout_max:
        text = f"fanout: {format_path(origin.path)} emitted {len(emitted)} events at once, at most {limits.fanout_max}"
        return Refusal("fanout", origin.agent, origin.path, limits.fanout_max, len(emitted), text)
    declared = topology.agents[origin.agent].emits if origin.agent else None
    more_bytes = 0
    for type, _, data, branch in emitted:
        if declared is not None and type not in declared:
            names = ", ".join(declared) or "nothing"
            text = f"undeclared_type: {format_path(origin.path)} emitted {type!r}, but declares {names}"
            return Refusal("undeclared_type", origin.agent, origin.path, 0, 1, text)
        size = len(data)
        if size > limits.payload_bytes_max:
            text = f"{format_path(origin.path)} emitted a payload of {size} bytes, at most {limits.payload_bytes_max}"
            text = f"payload: {text}"
            return Refusal("payload", origin.agent, origin.path, limits.payload_bytes_max, size, text)
        if type in topology.egress:  # held for the outcome
            more_bytes += size
        for row in topology.rows.get(type, ()):
            if row.join and accepts(run.joins.get(row.agent.name, {}), type, branch):
                more_bytes += size
    held = run.state_bytes + more_bytes  # nearly all fit, and the check is cheaper than the call
    return refuse_state(run, more_bytes, origin, limits) if held > limits.state_bytes_max else None


def refuse_state(run: Run, more_bytes: int, origin: Task, limits: Limits) -> Refusal | None:
    """Return why the run may not hold `more_bytes` of payload, or None."""
    held = run.state_bytes + more_bytes
    if held <= limits.state_bytes_max:
        return None
    text = (
        f"state: {format_path(origin.path)} would bring the run to {held} bytes held, at most {limits.state_bytes_max}"
    )
    return Refusal("state", origin.agent, origin.path, limits.state_bytes_max, held, text)
