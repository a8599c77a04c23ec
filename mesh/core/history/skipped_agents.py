"""Find agents that an event of a run did not trigger, because their `when` was false. For display only."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.expression.condition import Condition
from mesh.core.protocol.event import Event, parse_json
from mesh.core.run.state import Run, Slots
from mesh.core.topology.model import Topology

VALUE_CHARS_MAX: Final = 80


class SkippedAgent(NamedTuple):
    """An agent that was not triggered. `type`: of the event; `reason`: the condition and the values that it read."""

    agent: str
    type: str
    reason: str


def skipped_agents(event: Event, before: Run | None, after: Run, topology: Topology) -> Iterator[SkippedAgent]:
    """Yield the agents that one request or result did not trigger, if the run consumed it."""
    if not _is_taken(event, before, after):
        return
    try:
        parts = event.parts()
    except ValueError:
        return
    for type, data in parts:
        for row in topology.rows.get(type, ()):
            when, payloads = row.agent.when, {type: parse_json(data)}
            if not row.join and when is not None and not when.holds(payloads):
                yield SkippedAgent(row.agent.name, type, condition_sentence(when, payloads))
    for name, slots in after.joins.items():
        when = topology.agents[name].when
        if when is not None:
            known: Slots = {} if before is None else before.joins.get(name, {})
            for branch, slot in slots.items():
                if slot.declined and not (branch in known and known[branch].declined):
                    inputs = {
                        t: got.data for at, s in slots.items() if _covers(at, branch) for t, got in s.inputs.items()
                    }
                    payloads = {type: parse_json(data) for type, data in inputs.items()}
                    yield SkippedAgent(name, " + ".join(topology.agents[name].on), condition_sentence(when, payloads))


def _is_taken(event: Event, before: Run | None, after: Run) -> bool:
    if event.task_id:
        return before is not None and event.task_id in before.open and event.task_id not in after.open
    return before is None or event.id not in before.roots


def _covers(above: tuple[str, ...], branch: tuple[str, ...]) -> bool:
    return branch[: len(above)] == above


def condition_sentence(when: Condition, payloads: Mapping[str, Any]) -> str:
    """Return a sentence such as `fraud.scored.score < 0.7 is false: fraud.scored.score is 0.93`."""
    values = {str(path): path.find(payloads) for path in when.paths}
    shown = ", ".join(f"{path} is {_value_text(value)}" for path, value in values.items())
    return f"{when} is {str(when.holds(payloads)).lower()}" + (f": {shown}" if shown else "")


def _value_text(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= VALUE_CHARS_MAX else f"{text[: VALUE_CHARS_MAX - 1]}…"
