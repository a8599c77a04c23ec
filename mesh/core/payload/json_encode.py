"""Values → JSON bytes as pydantic declares them, by alias. A value that JSON cannot carry exactly is refused.

A `PayloadWriter` is made once for a declared type. Its serializer raises where pydantic's would lose something
(`core.payload.exact_serializer`). The type's schema says what else could go wrong. The writer looks for the marks of
that in the bytes, and compares bytes and value only where it finds one (`core.payload.exact`).
"""

from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import SchemaValidator

from mesh.core.payload.exact import compare_with_json, find_unwritable, needs_comparison, path_of
from mesh.core.payload.exact_serializer import WHY, LossyValue, RecordedLosses, exact_serializer, parse_loss, parts
from mesh.core.payload.name_clashes import DuplicateJsonName, find_clashes
from mesh.core.payload.revalidate import is_of_pydantic, revalidator
from mesh.core.protocol.json_check import Flaw, has_long_number

_OPEN: Final = frozenset({"any", "function", "callable", "is-instance"})
"""Kinds of schemas that may write anything."""
_INTEGERS: Final = _OPEN | {"int", "decimal", "enum", "literal", "counter"}
_LOSABLE: Final = _OPEN | {"datetime", "time", "secret"}
_UNIONS: Final = frozenset({"union", "tagged-union"})
_COMPARED: Final = frozenset({"set", "frozenset", "keys", "temporal", "pattern", "function"})
"""Kinds of schemas whose losses leave no mark in the bytes."""
_ASYMMETRIC: Final = frozenset({"json", "computed-field", "is-instance", "call"})
_ASYMMETRIC_CONFIG: Final = (
    *("validate_by_alias", "validate_by_name", "populate_by_name", "ser_json_inf_nan", "ser_json_timedelta"),
    *("ser_json_temporal", "val_temporal_unit", "ser_json_bytes", "val_json_bytes", "polymorphic_serialization"),
)
"""Settings that make a type read other JSON than it writes."""
_PLAIN: Final = frozenset({dict, list, str, int, float, bool, type(None)})
_ORJSON_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS


class PayloadWriter:
    """Writes values of one declared type."""

    __slots__ = (
        *(
            "_any",
            "_compares",
            "_computes",
            "_integers",
            "_records_losses",
            "_options",
            "_revalidator",
            "_simple",
            "_to_json",
        ),
        *("adapter", "symmetric"),
    )

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self.adapter = adapter
        self._to_json: Callable[..., bytes] | None = None
        self._revalidator: SchemaValidator | None = None

    def prepare(self) -> None:
        """Read the type's schema. The first `write` calls this, too.

        Raises NameError, PydanticUserError: DuplicateJsonName where a class writes two fields under one name.
        """
        if not self.adapter.pydantic_complete:
            self.adapter.rebuild(raise_errors=True)
        clashing = list(find_clashes(self.adapter.core_schema))
        for clash in clashing:
            if clash.certain:
                raise DuplicateJsonName(clash)
        kinds = frozenset(_kinds(self.adapter.core_schema))
        self._integers = bool(kinds & _INTEGERS)
        self._compares = bool(clashing) or bool(kinds & _COMPARED)
        self._any = not kinds.isdisjoint(_OPEN)
        self.symmetric = not kinds & {"asymmetric", "function"}
        self._options: dict[str, Any] = {"warnings": False}
        if "alias" in kinds:
            self._options["by_alias"] = True
        self._records_losses = not kinds.isdisjoint(_UNIONS) and bool(kinds & _LOSABLE)
        self._computes = "computed-field" in kinds
        self._simple = self._options == {"warnings": False} and not self._records_losses
        self._to_json = exact_serializer(self.adapter.core_schema).to_json

    def write(self, value: Any) -> bytes | Flaw:
        """Return the JSON of a value, or its flaw: `unparseable`, `bad_number`, `bad_value`.

        A value that was made without validation may contradict its type; `checked` finds that.
        """
        if self._to_json is None:
            self.prepare()
            assert self._to_json is not None
        try:
            data = (
                self._to_json(value, warnings=False) if self._simple else self._write_with_options(self._to_json, value)
            )
        except (TypeError, ValueError, RecursionError, LossyValue) as error:  # pydantic's is a ValueError
            return self._explain(value, error)
        if self._compares or data.find(b"NaN") >= 0 or data.find(b"Infinity") >= 0:
            return compare_with_json(value, data)
        if self._any or (self._integers and has_long_number(data)):
            return compare_with_json(value, data) if self._computes or needs_comparison(value) else data
        return data

    def _write_with_options(self, to_json: Callable[..., bytes], value: Any) -> bytes:
        """Write with options. Raises a loss that a union of pydantic ignored."""
        if not self._records_losses:
            return to_json(value, **self._options)
        lost = RecordedLosses()
        data = to_json(value, context=lost, **self._options)
        for error in lost.values():
            raise error
        return data

    def checked(self, value: Any) -> bytes | Flaw:
        """Return the JSON of a value as `write`, validated against the type.

        A type that reads what it writes (`symmetric`) validates its JSON, any other the value (`value_mismatch`).
        """
        data = self.write(value)
        if isinstance(data, Flaw):
            return data
        return (self.json_mismatch(data) if self.symmetric else self.value_mismatch(value)) or data

    def value_mismatch(self, value: Any) -> Flaw | None:
        """Return the flaw of an instance that contradicts its declared type, or None."""
        if self._revalidator is None:
            self._revalidator = revalidator(self.adapter.core_schema)
        try:
            self._revalidator.validate_python(value, by_alias=False, by_name=True)
        except Exception as error:  # noqa: BLE001 - whatever a validator of the class raises
            return _mismatch(error)
        return None

    def json_mismatch(self, data: bytes) -> Flaw | None:
        """Return the flaw of JSON that does not fit the declared type, or None."""
        try:
            self.adapter.validator.validate_json(data)
        except Exception as error:  # noqa: BLE001 - whatever a validator of the class raises
            return _mismatch(error)
        return None

    def _explain(self, value: Any, error: Exception) -> Flaw:
        """Explain why pydantic did not write a value. Its own message may quote the payload, so it is not used."""
        found = parse_loss(error)
        if found is not None:
            what, place = found[0], path_of(value, *found)
            why, fix = WHY[what]
            return Flaw("bad_value", f"a {what} {why} at {place!r}; {fix}")
        flaw = find_unwritable(value)
        if flaw is not None:
            return flaw
        try:
            data = self.adapter.serializer.to_json(value, warnings="none", by_alias=True)
        except (TypeError, ValueError, RecursionError):
            return Flaw("unparseable", f"not JSON-able: a serializer raised {_cause(error)}")
        return self.json_mismatch(data) or Flaw("unparseable", "not of its declared type: a field holds another type")


@lru_cache(maxsize=4_096)
def writer_of(cls: type) -> PayloadWriter:
    """Return the writer of a class, made once."""
    return PayloadWriter(TypeAdapter(cls))


def encode(value: Any) -> bytes | Flaw:
    """Return a pydantic model, a dataclass or JSON-able values (which may contain models) as JSON; else the flaw."""
    if value.__class__ not in _PLAIN and (isinstance(value, BaseModel) or _is_data(value)):
        return _write_value(value)
    try:
        data = orjson.dumps(value, _write_nested, _ORJSON_OPTIONS)
    except (TypeError, ValueError, RecursionError) as error:
        return _flaw_of(value, error)
    return compare_with_json(value, data) if b"null" in data and needs_comparison(value) else data


def mismatch(error: ValidationError) -> str:
    """Describe the first field that does not fit, without its value."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(step) for step in first['loc']) or '(document)'}: {first['msg']}"


def _mismatch(error: Exception) -> Flaw:
    why = mismatch(error) if isinstance(error, ValidationError) else f"a validator raised {type(error).__name__}"
    return Flaw("unparseable", f"not of its declared type: {why}")


def _write_value(value: Any) -> bytes | Flaw:
    try:
        return writer_of(value.__class__).write(value)
    except DuplicateJsonName as error:
        return Flaw("duplicate_key", f"{error}; give one of them another serialization alias")
    except PydanticUserError as error:
        return Flaw("unparseable", f"not JSON-able: {str(error).splitlines()[0]}")


class _Flawed(TypeError):
    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.message)
        self.flaw = flaw


def _write_nested(value: Any) -> orjson.Fragment:
    """Write a model among JSON-able values."""
    if not isinstance(value, BaseModel) and not _is_data(value):
        raise TypeError
    data = _write_value(value)
    if isinstance(data, Flaw):
        raise _Flawed(data)
    return orjson.Fragment(data)


def _flaw_of(value: Any, error: BaseException) -> Flaw:
    if isinstance(error.__cause__, _Flawed):
        return error.__cause__.flaw
    return find_unwritable(value, strictly=True) or Flaw("unparseable", f"not JSON-able: {error}")


def _is_data(value: Any) -> bool:
    return is_dataclass(value) and not isinstance(value, type)


def _cause(error: BaseException) -> str:
    return str(error).rpartition("Error calling function ")[2].splitlines()[0][:200] or type(error).__name__


def _kinds(schema: Any) -> Iterator[str]:
    """Yield what matters for writing in a schema: names of schemas, and own words for other features."""
    below, seen = [schema], set[int]()
    while below:
        node = below.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, dict):
            below.extend(value for _, value in parts(node))
            yield from _kinds_of_node(node)
        elif isinstance(node, list | tuple):
            below.extend(node)


def _kinds_of_node(node: dict[Any, Any]) -> Iterator[str]:
    kind = node.get("type")
    if isinstance(kind, str):
        yield kind
    if kind == "dict" and node.get("keys_schema", {}).get("type") != "str":
        yield "keys"
    if kind in _ASYMMETRIC or node.get("serialization_exclude"):
        yield "asymmetric"
    if node.get("extra_behavior") == "allow" and "extras_schema" not in node:
        yield "any"
    alias = node.get("serialization_alias")
    if alias is not None or (kind == "computed-field" and "alias" in node):
        yield "alias"
    if node.get("validation_alias") != alias:
        yield "asymmetric"
    yield from _kinds_of_functions(node)
    config = node.get("config")
    if isinstance(config, dict):
        yield from _kinds_of_config(config)


def _kinds_of_functions(node: dict[Any, Any]) -> Iterator[str]:
    writes = node.get("serialization")
    if isinstance(writes, dict):
        if str(writes.get("type")).startswith("function"):
            yield "secret" if is_of_pydantic(writes["function"]) else "function"
        elif writes.get("type") == "any":
            yield from ("asymmetric", "any")
    validates = node.get("function")
    if isinstance(validates, dict):
        if node["type"] == "function-plain":  # the validator makes the value
            yield "pattern"
        if not is_of_pydantic(validates["function"]):
            yield "asymmetric"


def _kinds_of_config(config: dict[str, Any]) -> Iterator[str]:
    if config.get("extra_fields_behavior") == "allow":
        yield "any"
    if config.get("ser_json_timedelta", "iso8601") != "iso8601" or "ser_json_temporal" in config:
        yield "temporal"
    if any(name in config for name in _ASYMMETRIC_CONFIG):
        yield "asymmetric"
