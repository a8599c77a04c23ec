"""One run of the real topics.yaml with the real functions, without log, orchestrator and worker: types in, types out.

For tests that need thousands of runs, or runs in a chosen order. Payloads cross every step as JSON, as on a log.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from mesh import Context
from mesh.app.wiring import load_agents, load_topology
from mesh.core.task.agent import Agent
from mesh.core.topology.model import AgentSpec, Topology

PROJECT = Path(__file__).parents[2]
TOPICS = PROJECT / "topics.yaml"
FILES = sorted(path for path in (PROJECT / "agents").glob("*/*.py") if not path.with_name("topics.yaml").exists())
"""Modules of the example apps that topics.yaml wires; a folder with a topics.yaml is a mesh of its own."""


class Emitted(NamedTuple):
    """One event of a run."""

    type: str
    data: bytes

    @property
    def payload(self) -> Any:
        return orjson.loads(self.data)


class Walk(NamedTuple):
    """All events of a run in the order they were emitted, and the agents that ran."""

    events: tuple[Emitted, ...]
    agents: tuple[str, ...]
    egress: tuple[Emitted, ...]
    starved: tuple[str, ...]
    """Joins that got something and never fired: they would make the run partial."""


@cache
def example_mesh() -> tuple[Topology, dict[str, Agent]]:
    """topics.yaml and the functions it names."""
    topology = load_topology(str(TOPICS))
    return topology, dict(load_agents(topology))


async def walk(type: str, payload: Any, context: Callable[[str], Context]) -> Walk:
    """Everything that one event causes. `context(agent)` is called once a task."""
    topology, agents = example_mesh()
    waiting = [Emitted(type, orjson.dumps(payload))]
    events: list[Emitted] = []
    ran: list[str] = []
    joins: dict[str, dict[str, bytes]] = {}
    while waiting:
        event = waiting.pop(0)
        for row in topology.rows.get(event.type, ()):
            inputs = {event.type: event.data}
            if row.join:
                inputs = joins.setdefault(row.agent.name, {}) | inputs
                joins[row.agent.name] = inputs
                if set(inputs) != set(row.join):
                    continue
            if _wanted(row.agent, inputs):
                ran.append(row.agent.name)
                emitted = await _call(agents[row.agent.name], inputs, context(row.agent.name))
                assert {e.type for e in emitted} <= set(row.agent.emits), row.agent.name
                waiting += emitted
                events += emitted
    starved = tuple(name for name, got in joins.items() if set(got) != set(topology.agents[name].on))
    return Walk(tuple(events), tuple(ran), tuple(e for e in events if e.type in topology.egress), starved)


def _wanted(spec: AgentSpec, inputs: dict[str, bytes]) -> bool:
    return spec.when is None or spec.when.holds({type: orjson.loads(data) for type, data in inputs.items()})


async def _call(agent: Agent, inputs: dict[str, bytes], context: Context) -> list[Emitted]:
    arguments: dict[str, Any] = {agent.context: context} if agent.context else {}
    for parameter in agent.parameters:
        type = next(t for t in parameter.types if t in inputs)
        arguments[parameter.name] = parameter.adapters[type].validate_json(inputs[type])
    answer = await agent.function(**arguments)
    answers = answer if isinstance(answer, list) else [] if answer is None else [answer]
    return [Emitted(a.event_type, a.__pydantic_serializer__.to_json(a)) for a in answers]
