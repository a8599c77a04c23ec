"""Find fields of one class that are written under the same JSON name, in pydantic's core schema.

Pydantic writes both, and a reader of JSON keeps one. Names are compared as written by alias.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import PydanticUserError

from mesh.core.payload.exact_serializer import parts

Schema = Mapping[str, Any]
_FIELDS: Final = frozenset({"model-fields", "dataclass-args", "typed-dict"})
_UNWRITTEN: Final = frozenset({"config", "serialization", "json_schema_input_schema", "arguments_schema"})
"""Keys of a schema below which no schema is written."""


class Clash(NamedTuple):
    """Fields of a class with one JSON name. `certain`: every value writes more than one of them."""

    owner: str
    key: str
    names: tuple[str, ...]
    certain: bool


class DuplicateJsonName(PydanticUserError):
    """A class that always writes two of its fields under one JSON name."""

    def __init__(self, clash: Clash) -> None:
        names = " and ".join(repr(name) for name in clash.names)
        super().__init__(f"{clash.owner} writes its fields {names} under one name, {clash.key!r}", code=None)


def find_clashes(schema: Schema) -> Iterator[Clash]:
    """Yield the clashes of every class that a schema writes. A schema that a serializer replaces is not written."""
    definitions: dict[str, Schema] = {}
    below: list[Any] = [schema]
    seen: set[int] = set()
    while below:
        node = below.pop()
        if isinstance(node, list | tuple):
            below.extend(node)
        if not isinstance(node, dict) or id(node) in seen or _is_unwritten(node):
            continue
        seen.add(id(node))
        kind, writes = node.get("type"), node.get("serialization")
        if kind == "definitions":
            definitions.update((each["ref"], each) for each in node["definitions"])
            below.append(node["schema"])
        elif writes is not None and writes["type"] != "function-wrap":
            below += [writes.get("return_schema"), writes.get("schema")]
        elif kind == "definition-ref":
            below.append(definitions.get(node["schema_ref"]))
        else:
            below.extend(value for word, value in parts(node) if word not in _UNWRITTEN)
            if kind in _FIELDS:
                yield from _of_class(node)


def _of_class(node: Schema) -> Iterator[Clash]:
    owner = str(node.get("model_name") or node.get("dataclass_name") or getattr(node.get("cls"), "__name__", "a class"))
    written: dict[str, list[tuple[str, bool]]] = {}
    for name, key, always in _written_fields(node):
        written.setdefault(key, []).append((name, always))
    for key, several in written.items():
        certain = [name for name, always in several if always]
        if len(certain) > 1:
            yield Clash(owner, key, tuple(certain), certain=True)
        elif len(several) > 1 or (_takes_more(node) and key != several[0][0]):
            yield Clash(owner, key, tuple(name for name, _ in several), certain=False)


def _written_fields(node: Schema) -> Iterator[tuple[str, str, bool]]:
    """Yield every written field: its name, its JSON name, and whether it is always written."""
    fields = node["fields"]
    several = ((each["name"], each) for each in fields) if isinstance(fields, Sequence) else fields.items()
    for name, field in several:
        if not _is_unwritten(field):
            always = field.get("required", node.get("total", True)) and "serialization_exclude_if" not in field
            yield name, field.get("serialization_alias", name), always
    for field in node.get("computed_fields", ()):
        name = field["property_name"]
        yield name, field.get("alias", name), "serialization_exclude_if" not in field


def _is_unwritten(field: Schema) -> bool:
    return bool(field.get("serialization_exclude") is True or field.get("init_only") is True)


def _takes_more(node: Schema) -> bool:
    """Whether a TypedDict accepts undeclared fields. The value shows those of a model."""
    behavior = node.get("extra_behavior") or (node.get("config") or {}).get("extra_fields_behavior")
    return node["type"] == "typed-dict" and behavior == "allow"
