"""Validate a value that is an instance of its type already: all its fields again, by name.

    revalidator(adapter.core_schema).validate_python(value, by_alias=False, by_name=True)

A validator of pydantic reads raw input, and accepts an instance of a class unseen. This one is made from the same
schema with these differences:

- instances of models and dataclasses are validated field by field, and so are their computed fields;
- validators that run before or around pydantic's own (`mode="before"`, `"wrap"`, `"plain"`), `Json` and encoders
  (`Base64Bytes`) are omitted, since they read raw input;
- validators that run after pydantic's own (`mode="after"`) apply, so they have to accept their own results. An object
  of another class than its type, returned by such a validator, is accepted;
- a subclass may have more fields.
"""

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import partial
from typing import Any, Final

from pydantic import BaseModel, EncodedBytes, EncodedStr, ValidationError
from pydantic_core import SchemaValidator

Schema = dict[str, Any]
_OPAQUE: Final = frozenset({"function", "cls", "metadata", "serialization", "default", "config"})
"""Keys of a schema below which no schema validates."""
_NAMED: Final = frozenset({"fields", "choices"})
"""Keys of a schema that may hold schemas by name."""
_RAW: Final = frozenset({"function-before", "function-wrap", "function-plain"})
_INSTANCES: Final = frozenset({"model", "dataclass"})
_PLAIN: Final = frozenset({dict, list, tuple, set, frozenset, str, bytes, int, float, bool, type(None)})
_INNER: Final = ("schema", "lax_schema")


def revalidator(schema: Any) -> SchemaValidator:
    """Make a validator of instances from a schema of pydantic. See the module."""
    return SchemaValidator(_for_instances(schema), _use_prebuilt=False)


def is_of_pydantic(function: Any) -> bool:
    """Whether a validator or serializer is one of pydantic's own."""
    return str(getattr(function, "__module__", "")).startswith("pydantic")


def _for_instances(node: Any) -> Any:
    """Convert a schema, or a part of one, to one that validates instances."""
    if isinstance(node, list | tuple):
        return node.__class__(map(_for_instances, node))
    if not isinstance(node, dict):
        return node
    replaced = _without_raw(node)
    if replaced is not node:
        return _for_instances({**replaced, "ref": node["ref"]} if "ref" in node else replaced)
    found = {word: _inner(word, value) for word, value in node.items()}
    kind = node.get("type")
    if kind in _INSTANCES:
        return _instance(node, found)
    if kind == "function-after" and not is_of_pydantic(node["function"]["function"]):
        after = partial(_apply, node["function"]["function"])
        return {**found, "type": "function-wrap", "function": {**node["function"], "function": after}}
    if kind == "default":
        found["on_error"] = "raise"
    elif kind == "dataclass-field":
        found["init"] = True
    elif kind == "dataclass-args":
        found["fields"] = [field for field in found["fields"] if not field.get("init_only")]
    if kind in ("model-fields", "dataclass-args") and found.get("extra_behavior") == "forbid":
        found["extra_behavior"] = "ignore"
    return found


def _inner(word: str, value: Any) -> Any:
    """Convert the value of one key of a schema."""
    if word in _NAMED and isinstance(value, dict):
        return {name: _for_instances(schema) for name, schema in value.items()}
    return value if word in _OPAQUE else _for_instances(value)


def _without_raw(node: Schema) -> Schema:
    """Return the schema inside a validator that reads raw input; any other schema unchanged."""
    kind = node.get("type")
    if kind == "json":
        return _plain(node.get("schema"))
    if kind == "chain":
        return _plain(node["steps"][-1])
    if kind in _RAW and not is_of_pydantic(node["function"]["function"]):
        return _plain(node.get("schema"))
    if kind == "function-after" and isinstance(
        getattr(node["function"]["function"], "__self__", None), EncodedBytes | EncodedStr
    ):
        return _plain(node["schema"])
    return node


def _plain(schema: Any) -> Schema:
    return dict(schema) if schema is not None else {"type": "any"}


def _instance(node: Schema, found: Schema) -> Schema:
    """Convert the schema of a class, so that it validates the fields of instances."""
    fields = _fields(node)
    declared = fields.get("fields", ())
    several = declared if isinstance(declared, list | tuple) else list(declared.values())
    found["revalidate_instances"] = "always"
    found.pop("custom_init", None)
    config = node.get("config") or {}
    found["config"] = {**config, "extra_fields_behavior": "ignore"} if _forbids(config) else config
    steps: list[Schema] = [found]
    if any("serialization_alias" in field for field in several):  # a dict would be written without aliases
        steps.insert(0, {"type": "is-instance", "cls": node["cls"]})
    if any(field.get("init_only") for field in several):
        found["post_init"] = False  # it needs them
    computed = fields.get("computed_fields")
    if computed:
        steps.insert(0, _computed_schema(node["cls"], computed))
    if len(steps) == 1:
        return found
    ref = {"ref": found.pop("ref")} if "ref" in found else {}
    return {"type": "chain", "steps": steps, **ref}


def _computed_schema(cls: type, computed: Any) -> Schema:
    """Return the schema of a step that validates the computed fields of an instance."""
    members = {
        each["property_name"]: {"type": "typed-dict-field", "schema": _for_instances(each["return_schema"])}
        for each in computed
    }
    look: Callable[..., Any] = partial(_compute, cls, tuple(members))
    fields = {"type": "typed-dict", "fields": members}
    return {"type": "function-wrap", "function": {"type": "no-info", "function": look}, "schema": fields}


def _forbids(config: Mapping[str, Any]) -> bool:
    return config.get("extra_fields_behavior") == "forbid"


def _fields(node: Schema) -> Schema:
    """Return the schema of a class's fields, inside the validators around them."""
    inner = node
    while inner is node or "fields" not in inner:
        found = next((inner[word] for word in _INNER if word in inner), None)
        if not isinstance(found, dict) or found.get("type") in _INSTANCES:
            return {}
        inner = found
    return inner


def _apply(function: Callable[..., Any], value: Any, validate: Callable[[Any], Any], *info: Any) -> Any:
    """Validate the result of a validator, and call the validator with it again."""
    try:
        valid = validate(value)
    except ValidationError:
        if _is_known(value):
            raise
        return value
    return function(valid, *info)


def _is_known(value: Any) -> bool:
    """Whether a value is plain or an instance of a model, which the types before validators describe."""
    return value.__class__ in _PLAIN or isinstance(value, BaseModel) or is_dataclass(value)


def _compute(cls: type, names: tuple[str, ...], value: Any, validate: Callable[[Any], Any]) -> Any:
    """Validate the computed fields of an instance."""
    if isinstance(value, cls):
        validate({name: getattr(value, name) for name in names})
    return value
