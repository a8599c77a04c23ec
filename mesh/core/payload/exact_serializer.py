"""A serializer that raises wherever pydantic's own would lose a part of a value.

    exact_serializer(adapter.core_schema).to_json(value, by_alias=True)

It is made from the same schema with these differences:

- secrets are not written as asterisks: `LossyValue` is raised. A serializer of the class's own may write anything;
- NaN and infinity are written as `NaN` and `Infinity` instead of `null`. Both are invalid JSON, which a caller finds;
- a UTC offset with seconds is not cut to minutes: `LossyValue` is raised;
- values without a declared type (`Any`, extra fields, results of serializers without a return annotation) are searched
  for both.

pydantic passes on only the text of an exception. The text names the object by its id, from which its path follows. A
union of pydantic tries its next member after an exception. So a `RecordedLosses`, passed as context, records it, too.
"""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, time
from functools import lru_cache
from typing import Any, Final, NoReturn

from pydantic import Secret, SecretBytes, SecretStr, SerializationInfo
from pydantic_core import SchemaSerializer

from mesh.core.payload.revalidate import is_of_pydantic

Schema = dict[str, Any]
_SECRETS: Final = (SecretStr, SecretBytes, Secret)
_OPAQUE: Final = frozenset({"cls", "metadata", "default", "function"})
"""Keys of a schema below which no schema writes."""
_NAMED: Final = frozenset({"fields", "choices"})
"""Keys of a schema that may hold schemas by name."""
_CONFIGURED: Final = frozenset({"model", "dataclass", "typed-dict"})
_FIELDS: Final = frozenset({"model-fields", "typed-dict"})
_WRITES: Final = frozenset({"function-plain", "function-wrap"})
_TEMPORAL: Final = frozenset({"datetime", "time"})
_CONSTANTS: Final = {"ser_json_inf_nan": "constants"}
_MASK: Final = "**********"
_TOKEN: Final = re.compile(r"LossyValue: (secret|offset) (\d+)")
_LEAVES: Final = frozenset({str, int, float, bool, type(None), bytes})
_CONTAINERS: Final = (list, tuple, set, frozenset, deque)

WHY: Final[Mapping[str, tuple[str, str]]] = {
    "secret": (
        "would be written as asterisks",
        "declare what is written: a `@field_serializer` that returns `value.get_secret_value()`",
    ),
    "offset": ("has a UTC offset with seconds, which would be cut", "convert it to UTC"),
}
"""Kind of loss → its reason and its fix."""


def parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a schema, each with its key. Names of fields and choices are not keys of it."""
    for word, value in schema.items():
        if word in _NAMED and isinstance(value, dict):
            yield from ((word, each) for each in value.values())
        elif word not in _OPAQUE:
            yield word, value


class LossyValue(Exception):
    """A value that would be written as another one."""

    def __init__(self, what: str, value: Any) -> None:
        super().__init__(f"LossyValue: {what} {id(value)}")


class RecordedLosses(dict[str, LossyValue]):
    """The exceptions of one call, by kind."""


def exact_serializer(schema: Any) -> SchemaSerializer:
    """Make a serializer that raises `LossyValue` from a schema of pydantic. See the module."""
    return SchemaSerializer(_exact(schema, {}), _CONSTANTS, _use_prebuilt=False)  # type: ignore[arg-type]


def parse_loss(error: BaseException) -> tuple[str, int] | None:
    """Read the kind of loss (a key of `WHY`) and the id of the object from an exception of such a serializer."""
    found = _TOKEN.search(str(error))
    return None if found is None else (found[1], int(found[2]))


def is_lossy(what: str, value: Any) -> bool:
    """Whether a value has this kind of loss."""
    return _is_hidden(value) if what == "secret" else _is_cut(value)


def _is_hidden(value: Any) -> bool:
    """Whether a secret would be written as asterisks."""
    if not isinstance(value, _SECRETS):
        return False
    secret = value.get_secret_value()
    return bool(secret) and secret != _MASK


def _is_cut(value: Any) -> bool:
    """Whether a time has a UTC offset that would be written without its seconds."""
    if not isinstance(value, datetime | time) or value.tzinfo is None:
        return False
    offset = value.utcoffset()
    return offset is not None and (offset.seconds % 60 != 0 or offset.microseconds != 0)


def _refuse(what: str, value: Any, context: Any) -> NoReturn:
    error = LossyValue(what, value)
    if isinstance(context, RecordedLosses):
        context[what] = error
    raise error


def _write_secret(value: Any, info: SerializationInfo) -> Any:
    if _is_hidden(value):
        _refuse("secret", value, info.context)
    return value.get_secret_value() and _MASK


def _write_time(value: Any, info: SerializationInfo) -> Any:
    if _is_cut(value):
        _refuse("offset", value, info.context)
    return value


def _write_any(value: Any, info: SerializationInfo) -> Any:
    """Search a value without a declared type. An iterator is read into a list."""
    if isinstance(value, Iterator):
        value = list(value)
    _look(value, info.context)
    return value


def _look(value: Any, context: Any) -> None:
    """Raise LossyValue at the first lossy part. A part with a schema of its own is written to find out."""
    kind = value.__class__
    if kind in _LEAVES:
        return
    if isinstance(value, Mapping):
        for key, member in value.items():
            _look(key, context)
            _look(member, context)
    elif isinstance(value, _CONTAINERS):
        for member in value:
            _look(member, context)
    elif "__pydantic_core_schema__" in kind.__dict__:
        _serializer_of(kind).to_json(value, warnings=False, by_alias=True, context=context)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            _look(getattr(value, field.name), context)
    elif _is_hidden(value):
        _refuse("secret", value, context)
    elif _is_cut(value):
        _refuse("offset", value, context)


@lru_cache(maxsize=4_096)
def _serializer_of(cls: Any) -> SchemaSerializer:
    """Return the serializer of a class whose instances appear in values without a declared type."""
    return exact_serializer(cls.__pydantic_core_schema__)


_ANYTHING: Final[Schema] = {
    "type": "any",
    "serialization": {
        "type": "function-plain",
        "function": _write_any,
        "info_arg": True,
        "return_schema": {"type": "any"},
    },
}


def _exact(node: Any, config: Mapping[str, Any]) -> Any:
    """Convert a schema, or a part of one, to one whose serializer raises. `config`: that of the class around it."""
    if isinstance(node, list | tuple):
        return node.__class__(_exact(each, config) for each in node)
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    if kind in _CONFIGURED:
        config = node.get("config") or {}
    found = {word: _inner(word, value, config) for word, value in node.items()}
    if kind in _CONFIGURED and config.get("ser_json_inf_nan") != "strings":
        found["config"] = {**config, **_CONSTANTS}
    if kind in _FIELDS and (node.get("extra_behavior") or config.get("extra_fields_behavior")) == "allow":
        found["extra_behavior"] = "allow"
        found.setdefault("extras_schema", _ANYTHING)
    writes = node.get("serialization")
    if writes is None:
        found.update(_writing(kind))
    elif writes.get("type") in _WRITES:
        found["serialization"] = _serialization(found["serialization"])
    return found


def _writing(kind: Any) -> Schema:
    """Return the serialization that a schema without one gets."""
    if kind == "any":
        return {"serialization": _ANYTHING["serialization"]}
    if kind not in _TEMPORAL:
        return {}
    returns = {"return_schema": {"type": kind}}
    return {"serialization": {"type": "function-plain", "function": _write_time, "info_arg": True, **returns}}


def _serialization(writes: Schema) -> Schema:
    """Convert a serializer function: pydantic's for secrets raises, and results of other ones are searched."""
    function = writes["function"]
    if is_of_pydantic(function) and "_serialize_secret" in getattr(function, "__name__", ""):
        return {**writes, "function": _write_secret}
    if is_of_pydantic(function) or writes.get("return_schema", {"type": "any"})["type"] != "any":
        return writes
    return {**writes, "return_schema": _ANYTHING}


def _inner(word: str, value: Any, config: Mapping[str, Any]) -> Any:
    """Convert the value of one key of a schema."""
    if word in _NAMED and isinstance(value, dict):
        return {name: _exact(schema, config) for name, schema in value.items()}
    if word in _OPAQUE or word == "config":
        return value
    return _exact(value, config)
