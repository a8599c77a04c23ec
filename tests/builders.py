"""Builders of the values that tests of the core begin with: a topology from arrows, an event, a run, a record.

    topology(plan="ask -> plan.ready", ship=agent("stock & price -> shipped", when="price.usd < 100"))

`a | b` subscribes to either, `a & b` joins both. Types that no agent emits are ingress types, and types without a
subscriber are egress types, unless the arguments say otherwise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

import orjson

from mesh.core.expression.condition import parse
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import REQUESTED, Event
from mesh.core.protocol.record import StoredRecord
from mesh.core.run.state import Run
from mesh.core.topology.model import AgentSpec, Limits, Row, TopicRule, Topology

AT_MS: Final = 1_795_176_000_000
"""When the first event of a test happens."""
RUN_ID: Final = "run-1"


def agent(arrows: str, *, when: str = "", **fields: Any) -> AgentSpec:
    """An agent without a name yet, from `heard -> emitted, emitted`. `fields` are those of AgentSpec."""
    heard, _, emitted = arrows.partition("->")
    on = tuple(heard.replace("&", " ").replace("|", " ").split())
    emits = tuple(emitted.replace(",", " ").split())
    condition = parse(when, on) if when else None
    return AgentSpec("", "tests:none", on, emits, join="&" in heard, when=condition, **fields)


def topology(
    limits: Limits | None = None,
    *,
    comes_in: Iterable[str] = (),
    leaves: Iterable[str] = (),
    egress_key: str | None = None,
    **agents: str | AgentSpec,
) -> Topology:
    """A mesh of these agents. `comes_in` and `leaves`: types beside those that follow from the arrows."""
    specs = {
        name: replace(agent(given) if isinstance(given, str) else given, name=name) for name, given in agents.items()
    }
    specs = {name: replace(spec, cyclic=_reaches(spec, spec, specs)) for name, spec in specs.items()}
    heard = list(dict.fromkeys(type for spec in specs.values() for type in spec.on))
    emitted = list(dict.fromkeys(type for spec in specs.values() for type in spec.emits))
    entries = dict.fromkeys([*(type for type in heard if type not in emitted), *comes_in])
    exits = dict.fromkeys([*(type for type in emitted if type not in heard), *leaves])
    rows = {
        type: tuple(Row(spec, spec.on if spec.join else ()) for spec in specs.values() if type in spec.on)
        for type in heard
    }
    ingress = {type: TopicRule(f"in.{type}", ingress=type) for type in entries}
    egress = {type: TopicRule(f"out.{type}", egress=(type,), key=egress_key) for type in exits}
    topics = {rule.name: rule for rule in (*ingress.values(), *egress.values())}
    breaking = frozenset(name for name, spec in specs.items() if spec.breaker is not None)
    mesh = Topology("test", "0" * 16, limits or Limits(), specs, topics, rows=rows, ingress=ingress, egress=egress)
    return replace(mesh, breaking=breaking)


def event(kind: str = REQUESTED, **fields: Any) -> Event:
    """An event; by default the request `r1` of type `ask` for run `run-1`."""
    given: dict[str, Any] = {
        "id": "r1",
        "source": "/tests",
        "type": "ask",
        "run_id": RUN_ID,
        "data": b"{}",
        "at_ms": AT_MS,
        "origin": "mesh.inbox:0:0",
    }
    return Event(kind=kind, **{**given, **fields})


def run(**fields: Any) -> Run:
    """A run that has just been opened."""
    given: dict[str, Any] = {
        "id": RUN_ID,
        "type": "ask",
        "topology": "0" * 16,
        "opened_ms": AT_MS,
        "deadline_ms": AT_MS + 60_000,
    }
    return Run(**{**given, **fields})


def record(event: Event, offset: int = 0, **fields: Any) -> StoredRecord:
    """The record of mesh.inbox that holds an event."""
    stored = StoredRecord("mesh.inbox", 0, offset, event.at_ms, event.run_id.encode(), event.data, event_headers(event))
    return stored._replace(**fields)


def json(value: Any) -> bytes:
    """A payload."""
    return orjson.dumps(value)


def _reaches(spec: AgentSpec, goal: AgentSpec, specs: Mapping[str, AgentSpec]) -> bool:
    seen: set[str] = set()
    emitted = list(spec.emits)
    while emitted:
        type = emitted.pop()
        for other in specs.values():
            if type in other.on and other.name not in seen:
                seen.add(other.name)
                emitted.extend(other.emits)
    return goal.name in seen
