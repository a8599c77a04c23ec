"""Paths of topics.yaml (`when`, `key`, `id`) against the payload classes of the agents: is there such a field?

    wrong, open = paths_of(topology, agents)

A type of event has the fields of every class that an agent declares for it, as a parameter or as a result. A path is
wrong where every class of every type that it may read lacks the field. A class that may hold any field cannot be
checked (`extra="allow"`, `dict`, a validator that runs before pydantic's own), nor a type without a class: `open` names
those.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

from mesh.core.agent import Agent
from mesh.core.condition import parse_path
from mesh.core.errors import Problem
from mesh.core.path import Path
from mesh.core.suggest import nearest
from mesh.core.topology import Topology

Schema = Mapping[str, Any]
_OPEN: Final[Schema] = {}
_FREE: Final = frozenset({"function-before", "function-wrap", "function-plain"})
"""Kinds of validators that may take other fields than their class declares."""


class Open(NamedTuple):
    """A path that cannot be checked: `place` in topics.yaml, the path, the types that it may read."""

    line: int
    place: str
    path: str
    types: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.place}: {self.path} is not checked: a payload of {', '.join(self.types)} may have any field"


def paths_of(topology: Topology, agents: Mapping[str, Agent]) -> tuple[list[Problem], list[Open]]:
    """Paths that no payload class has, and those that cannot be checked."""
    classes = _classes(agents)
    wrong: list[Problem] = []
    unknown: list[Open] = []
    for line, place, path, types in _declared(topology):
        found = [_lookup(schema, path.segments) for type in types for schema in classes.get(type, (_OPEN,))]
        if True in found or not path.segments:
            continue
        if None in found:
            unknown.append(Open(line, place, str(path), types))
            continue
        names = [name for one in found if isinstance(one, _Lacks) for name in one.names]
        lacking = next(one.name for one in found if isinstance(one, _Lacks))
        near = nearest(lacking, names)
        remedy = f"Did you mean {near}?" if near else f"Fields there: {', '.join(dict.fromkeys(names)) or 'none'}"
        what = f"{place}: {path} names no field of {', '.join(types)}: there is no {lacking!r}"
        wrong.append(Problem(line, what, remedy))
    return wrong, unknown


def _declared(topology: Topology) -> Iterator[tuple[int, str, Path, tuple[str, ...]]]:
    """Every path with its line, its place and the types that it may read."""
    for name, spec in topology.agents.items():
        for path in dict.fromkeys(spec.when.paths if spec.when is not None else ()):
            yield spec.line, f"agents.{name}.when", path, spec.on if path.type is None else (path.type,)
        if spec.key is not None:
            yield spec.line, f"agents.{name}.key", parse_path(spec.key), topology.given(name)
    for rule in topology.topics.values():
        types = (*((rule.ingress,) if rule.ingress else ()), *rule.egress)
        for word, text in (("key", rule.key), ("id", rule.id)):
            if text is not None:
                yield rule.line, f"topics.{rule.name}.{word}", parse_path(text), types


def _classes(agents: Mapping[str, Agent]) -> dict[str, list[Schema]]:
    """Event type → JSON schemas of the classes that agents declare for it."""
    found: dict[str, list[Schema]] = {}
    for agent in agents.values():
        adapters = [(type, adapter) for p in agent.parameters for type, adapter in p.adapters.items()]
        adapters += [(type, writer.adapter) for type, writer in agent.results.types.items()]
        for type, adapter in adapters:
            if type:
                found.setdefault(type, []).extend(_schemas(adapter))
    return found


def _schemas(adapter: TypeAdapter[Any]) -> Iterable[Schema]:
    """A class as JSON schemas: with its names, and with its aliases."""
    if _is_free(adapter.core_schema):
        return (_OPEN,)
    try:
        return [adapter.json_schema(by_alias=by_alias) for by_alias in (True, False)]
    except (PydanticInvalidForJsonSchema, PydanticUserError, RecursionError):
        return (_OPEN,)


def _is_free(schema: Any) -> bool:
    """Whether a part of pydantic's own schema may take other fields than it declares."""
    todo, seen = [schema], set[int]()
    while todo:
        part = todo.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, Mapping):
            if part.get("type") in _FREE or isinstance(part.get("validation_alias"), list):
                return True
            todo.extend(part.values())
        elif isinstance(part, list | tuple):
            todo.extend(part)
    return False


class _Lacks(NamedTuple):
    """There is no field of this name; these are there."""

    name: str
    names: tuple[str, ...] = ()


def _lookup(schema: Schema, segments: Sequence[str | int]) -> bool | _Lacks | None:
    """Whether a class has what a path names; None: it cannot be told."""
    root, todo = schema, [(schema, tuple(segments), 0)]
    lacks: list[_Lacks] = []
    unknown = False
    while todo:
        part, rest, depth = todo.pop()
        if not rest:
            return True
        if (
            depth > 64 or isinstance(part, bool) or not part.keys() - {"title", "description", "default"}
        ):  # a class that refers to nothing but itself
            unknown = True
        elif "$ref" in part:
            todo.append((root["$defs"][part["$ref"].rpartition("/")[2]], rest, depth + 1))
        elif choices := [one for word in ("anyOf", "oneOf", "allOf") for one in part.get(word, ())]:
            todo += [(one, rest, depth + 1) for one in choices]
        elif (found := _step(part, rest[0])) is None or isinstance(found, _Lacks):
            unknown = unknown or found is None
            lacks += [found] if isinstance(found, _Lacks) else []
        else:
            todo.append((found, rest[1:], depth + 1))
    if unknown or not lacks:
        return None
    name = max(lacks, key=lambda lack: len(lack.names)).name
    return _Lacks(name, tuple(other for lack in lacks if lack.name == name for other in lack.names))


def _step(part: Schema, segment: str | int) -> Schema | _Lacks | None:
    """What one step of a path leads to."""
    if isinstance(segment, int):
        before = part.get("prefixItems", ())
        if segment < len(before):
            found: Schema = before[segment]
            return found
        items = part.get("items", _OPEN if part.get("type") == "array" and not before else False)
        return items if isinstance(items, Mapping) else _Lacks(f"[{segment}]")
    properties = part.get("properties", {})
    others = part.get("additionalProperties", False)
    if segment not in properties and (others is True or "patternProperties" in part):
        return None
    found = properties.get(segment, others)
    return found if isinstance(found, Mapping) else _Lacks(segment, tuple(properties))
