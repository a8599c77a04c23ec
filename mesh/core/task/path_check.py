"""Check the paths of topics.yaml (`when`, `key`, `id`) against the payload classes of the agents.

    wrong, unchecked = check_paths(topology, agents)

A path reads the JSON on the wire:

- An event that agents emit has the fields that their result classes write: serialization aliases and computed fields,
  without excluded fields.
- An event from outside, or one whose emitter declares no class, has the fields that its consumers accept: validation
  aliases, and names if the class allows them.

If several classes apply, a path is wrong only if none of them has the field. `unchecked` lists the paths that cannot be
checked: their type has no class, or the part may hold any field. That is so for `extra="allow"`, `dict`, a validator
that runs before pydantic's own, and a serializer without a return annotation. `core.payload.json_fields` knows the
shape of a class.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from mesh.core.errors import Problem
from mesh.core.expression.field_path import Path, parse_path
from mesh.core.payload.json_encode import PayloadWriter
from mesh.core.payload.json_fields import JsonSide, MissingField, lookup
from mesh.core.suggest import nearest
from mesh.core.task.agent import Agent
from mesh.core.topology.model import Topology


class UncheckedPath(NamedTuple):
    """A path that cannot be checked: its place in topics.yaml, the path, the types that it may read."""

    line: int
    place: str
    path: str
    types: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {self.path} is not checked: a payload of {', '.join(self.types)} may have any field"


def check_paths(topology: Topology, agents: Mapping[str, Agent]) -> tuple[list[Problem], list[UncheckedPath]]:
    """Return the paths that no payload class has, and those that cannot be checked."""
    sides = _sides(topology, agents)
    wrong: list[Problem] = []
    unknown: list[UncheckedPath] = []
    for line, place, path, types in _declared_paths(topology):
        found = [lookup(side, path.segments) if side else None for type in types for side in sides.get(type, (None,))]
        if True in found or not path.segments:
            continue
        if None in found:
            unknown.append(UncheckedPath(line, place, str(path), types))
            continue
        lacks = [one for one in found if isinstance(one, MissingField)]
        names = [name for one in lacks for name in one.names]
        lacking = lacks[0].name
        near = next((one.instead for one in lacks if one.instead), None) or nearest(lacking, names)
        remedy = f"Did you mean {near}?" if near else f"Fields there: {', '.join(dict.fromkeys(names)) or 'none'}"
        what = f"{place}: {path} names no field of {', '.join(types)}: there is no {lacking!r}"
        wrong.append(Problem(line, what, remedy))
    return wrong, unknown


def _declared_paths(topology: Topology) -> Iterator[tuple[int, str, Path, tuple[str, ...]]]:
    """Yield every path with its line, its place and the types that it may read."""
    for name, spec in topology.agents.items():
        for path in dict.fromkeys(spec.when.paths if spec.when is not None else ()):
            yield spec.line, f"agents.{name}.when", path, spec.on if path.type is None else (path.type,)
        if spec.key is not None:
            yield spec.line, f"agents.{name}.key", parse_path(spec.key), topology.input_types(name)
    for rule in topology.topics.values():
        types = (*((rule.ingress,) if rule.ingress else ()), *rule.egress)
        for word, text in (("key", rule.key), ("id", rule.id)):
            if text is not None:
                yield rule.line, f"topics.{rule.name}.{word}", parse_path(text), types


def _sides(topology: Topology, agents: Mapping[str, Agent]) -> dict[str, list[JsonSide]]:
    """Return event type → the classes whose JSON it has."""
    sides: dict[str, list[JsonSide]] = {}
    from_outside = {rule.ingress for rule in topology.topics.values() if rule.ingress}
    for spec in topology.agents.values():
        for type in spec.emits:
            writer = _writer(agents.get(spec.name), type, alone=len(spec.emits) == 1)
            if writer is None:
                from_outside.add(type)
            else:
                sides.setdefault(type, []).append(JsonSide(writer.adapter.core_schema, written=True))
    for name, agent in agents.items():
        for type in topology.input_types(name) if name in topology.agents else ():
            if type in from_outside:
                sides.setdefault(type, []).extend(JsonSide(adapter.core_schema) for adapter in _readers(agent, type))
    return sides


def _writer(agent: Agent | None, type: str, *, alone: bool) -> PayloadWriter | None:
    """Return an agent's writer for an event type. `alone`: it emits no other type; unnamed results have this one."""
    types = agent.results.types if agent is not None else {}
    return types.get(type) or (types.get("") if alone else None)


def _readers(agent: Agent, type: str) -> list[TypeAdapter[Any]]:
    """Return the adapters with which an agent's parameters read an event type."""
    named = [parameter.adapters[type] for parameter in agent.parameters if type in parameter.adapters]
    alone = agent.parameters[0].adapters if len(agent.parameters) == 1 else {}
    return named or ([alone[""]] if "" in alone else [])
