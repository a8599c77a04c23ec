"""Look up a path in the JSON of a class, as pydantic's core schema describes it.

A class has two sides: the JSON that it writes, and the JSON that it accepts. They differ in aliases, computed and
excluded fields, validators and serializers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mesh.core.payload.revalidate import is_of_pydantic

Schema = Mapping[str, Any]
DEPTH_MAX: Final = 256
_OPEN: Final[Schema] = {"type": "any"}
_SCALAR: Final[Schema] = {"type": "str"}
_SCALARS: Final = frozenset(
    {
        *("none", "bool", "int", "float", "decimal", "complex", "str", "bytes", "uuid", "url", "multi-host-url"),
        *("date", "time", "datetime", "timedelta", "enum", "literal"),
    }
)
_FIELDS: Final = frozenset({"model-fields", "dataclass-args", "typed-dict"})
_BEFORE: Final = frozenset({"function-before", "function-wrap", "function-plain"})
"""Kinds of validators that may accept other JSON than the type inside them."""
_INNER: Final = ("schema", "lax_schema", "json_schema")


class JsonSide(NamedTuple):
    """A class and one side of it."""

    schema: Schema
    written: bool = False
    """True: the JSON that it writes; False: the JSON that it accepts."""


class MissingField(NamedTuple):
    """The answer for a field that does not exist. `names`: the existing fields."""

    name: str
    names: tuple[str, ...] = ()
    instead: str | None = None
    """The JSON name of the field that has this name in the class."""


class _Part(NamedTuple):
    """A part of a class. `config`: that of its model."""

    schema: Schema
    config: Schema
    rest: tuple[str | int, ...]
    depth: int


class _Field(NamedTuple):
    """A field: its name in the class, its JSON names, and its schema."""

    name: str
    keys: tuple[str, ...]
    schema: Schema


def lookup(side: JsonSide, segments: Sequence[str | int]) -> bool | MissingField | None:
    """Whether a class has a field at a path; None when that is unknown."""
    definitions: dict[str, Schema] = {}
    todo = [_Part(side.schema, {}, tuple(segments), 0)]
    lacks: list[MissingField] = []
    unknown = False
    while todo:
        part = todo.pop()
        if not part.rest:
            return True
        if part.depth > DEPTH_MAX:  # a type that refers only to itself
            unknown = True
            continue
        inner = _same(part, side.written, definitions)
        if inner is None:
            found = _step(part, side.written)
            unknown |= found is None
            lacks += [found] if isinstance(found, MissingField) else []
            inner = (found,) if isinstance(found, _Part) else ()
        todo += inner
    if unknown or not lacks:
        return None
    deepest = max(lacks, key=lambda lack: len(lack.names))
    alike = [lack for lack in lacks if lack.name == deepest.name]
    instead = next((lack.instead for lack in alike if lack.instead), None)
    return MissingField(deepest.name, tuple(name for lack in alike for name in lack.names), instead)


def _same(part: _Part, written: bool, definitions: dict[str, Schema]) -> Sequence[_Part] | None:
    """Return the schemas that describe the JSON instead of this one; None when this one describes it."""
    schema = part.schema
    kind = schema["type"]
    if kind == "definitions":
        definitions.update((each["ref"], each) for each in schema["definitions"])
    replaced = _as_written(schema) if written else _as_accepted(schema)
    if replaced is not None:
        return (_below(part, replaced),)
    if kind == "definition-ref":
        return (_below(part, definitions[schema["schema_ref"]]),)
    if kind in ("union", "tagged-union"):
        choices = schema["choices"]
        several = choices.values() if isinstance(choices, Mapping) else choices
        return [_below(part, each[0] if isinstance(each, tuple) else each) for each in several]
    if kind == "chain":
        return (_below(part, schema["steps"][-1 if written else 0]),)
    inner = next((schema[word] for word in _INNER if word in schema), None) if kind != "json" else None
    if inner is None:
        return None
    return (_below(part, inner)._replace(config=schema.get("config", part.config)),)


def _as_written(schema: Schema) -> Schema | None:
    """Return the schema of what a serializer writes instead of its type."""
    writes = schema.get("serialization")
    if schema["type"] == "json" and writes is None:
        found: Schema = schema.get("schema", _OPEN)
        return found
    if not isinstance(writes, Mapping):
        return _OPEN if schema["type"] == "function-plain" else None
    if writes["type"] in ("function-plain", "function-wrap"):
        returned: Schema | None = writes.get("return_schema")
        return returned or (None if is_of_pydantic(writes["function"]) else _OPEN)
    return {"any": _OPEN, "to-string": _SCALAR, "format": _SCALAR, "model": writes.get("schema")}.get(writes["type"])


def _as_accepted(schema: Schema) -> Schema | None:
    """Return the schema of what a validator accepts instead of the type inside it."""
    if schema["type"] == "json":
        return _SCALAR
    if schema["type"] not in _BEFORE or is_of_pydantic(schema["function"]["function"]):
        return None
    found: Schema = schema.get("json_schema_input_schema", _OPEN)
    return found


def _step(part: _Part, written: bool) -> "_Part | MissingField | None":
    """Follow one step of a path."""
    kind, segment = part.schema["type"], part.rest[0]
    if kind in _SCALARS:
        return _lacks(segment)
    if kind in _FIELDS:
        return _field(part, written) if isinstance(segment, str) else _lacks(segment)
    if kind == "dict":
        return _any_key(part, "values_schema") if isinstance(segment, str) else _lacks(segment)
    if kind == "tuple":
        return _item(part) if isinstance(segment, int) else _lacks(segment)
    if kind in ("list", "set", "frozenset", "generator"):
        return _inside(part, part.schema.get("items_schema", _OPEN)) if isinstance(segment, int) else _lacks(segment)
    return None


def _any_key(part: _Part, word: str) -> _Part | None:
    """Return the value of a key that the class does not name; None when it may be any value."""
    values = part.schema.get(word, _OPEN)
    return None if values["type"] == "any" else _inside(part, values)


def _lacks(segment: str | int) -> MissingField:
    return MissingField(segment if isinstance(segment, str) else f"[{segment}]")


def _item(part: _Part) -> "_Part | MissingField":
    """Follow an index into a tuple."""
    items, index = part.schema["items_schema"], part.rest[0]
    assert isinstance(index, int)
    variadic = part.schema.get("variadic_item_index")
    if variadic is None:
        return _inside(part, items[index]) if index < len(items) else _lacks(index)
    return _inside(part, items[min(index, variadic)] if variadic == len(items) - 1 or index < variadic else _OPEN)


def _field(part: _Part, written: bool) -> "_Part | MissingField | None":
    """Follow the JSON name of a field."""
    key = part.rest[0]
    fields = list(_written_fields(part) if written else _accepted_fields(part))
    found = [field.schema for field in fields if key in field.keys]
    if found:
        return _inside(part, _merge(found))
    if _takes_more(part):
        return _any_key(part, "extras_schema")
    names = tuple(name for field in fields for name in field.keys)
    instead = next((field.keys[0] for field in fields if field.name == key and field.keys), None)
    return MissingField(str(key), names, instead)


def _takes_more(part: _Part) -> bool:
    """Whether a class accepts undeclared fields."""
    return (part.schema.get("extra_behavior") or part.config.get("extra_fields_behavior")) == "allow"


def _deeper(path: Sequence[str | int], schema: Schema) -> Schema:
    """Make a schema of nested objects with one field, at a path."""
    if not path:
        return schema
    if not isinstance(path[0], str):  # an item, which may be counted from the end
        return _OPEN
    return {"type": "typed-dict", "fields": {path[0]: {"schema": _deeper(path[1:], schema)}}, "is_of_path": True}


def _merge(schemas: Sequence[Schema]) -> Schema:
    """Merge schemas of the same JSON: those of `_deeper` become one with all their fields."""
    if len(schemas) == 1:
        return schemas[0]
    if not all(each.get("is_of_path") for each in schemas):
        return {"type": "union", "choices": schemas}
    fields: dict[str, list[Schema]] = {}
    for each in schemas:
        for name, field in each["fields"].items():
            fields.setdefault(name, []).append(field["schema"])
    merged = {name: {"schema": _merge(several)} for name, several in fields.items()}
    return {"type": "typed-dict", "fields": merged, "is_of_path": True}


def _written_fields(part: _Part) -> Iterator[_Field]:
    for name, field in _fields(part.schema):
        if not field.get("serialization_exclude") and not field.get("init_only"):
            yield _Field(name, (field.get("serialization_alias", name),), field["schema"])
    for field in part.schema.get("computed_fields", ()):
        name = field["property_name"]
        yield _Field(name, (field.get("alias", name),), field["return_schema"])


def _accepted_fields(part: _Part) -> Iterator[_Field]:
    config = part.config
    by_name = config.get("validate_by_name", config.get("populate_by_name", False))
    for name, field in _fields(part.schema):
        alias = field.get("validation_alias")
        if alias is None or not config.get("validate_by_alias", True):
            yield _Field(name, (name,), field["schema"])
            continue
        paths = [[alias]] if isinstance(alias, str) else [alias] if isinstance(alias[0], str) else alias
        yield _Field(name, tuple(path[0] for path in paths if len(path) == 1), field["schema"])
        for path in paths:
            if len(path) > 1:  # the value is nested
                yield _Field("", (path[0],), _OPEN if _takes_more(part) else _deeper(path[1:], field["schema"]))
        if by_name:
            yield _Field(name, (name,), field["schema"])


def _fields(schema: Schema) -> Iterator[tuple[str, Schema]]:
    fields = schema["fields"]
    yield from ((each["name"], each) for each in fields) if isinstance(fields, Sequence) else fields.items()


def _below(part: _Part, schema: Schema) -> _Part:
    return part._replace(schema=schema, depth=part.depth + 1)


def _inside(part: _Part, schema: Schema) -> _Part:
    return _Part(schema, {}, part.rest[1:], 0)
