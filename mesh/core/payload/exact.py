"""Compare a value with its JSON: does the JSON carry everything, and is it the same each time?

Serializers write `null` for NaN, asterisks for secrets, integers that common parsers round, and sets in an order that
differs between processes. `compare_with_json` walks value and JSON side by side. Only known losses are refused: a model
may write something else by a serializer of its own.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from re import Pattern
from typing import Any, Final, NamedTuple

import orjson
from pydantic import BaseModel, PydanticUserError, TypeAdapter

from mesh.core.payload.exact_serializer import is_lossy
from mesh.core.protocol.json_check import INTEGER_MAX, INTEGER_MIN, Flaw

DEPTH_MAX: Final = 255
"""Limit for the nesting of what serializers write."""
_SETS: Final = (set, frozenset)
_LISTS: Final = (list, tuple, set, frozenset, Sequence)
_TEXTS: Final = (str, bytes, bytearray)
_MICROSECOND: Final = timedelta(microseconds=1)
_ANYTHING: Final[TypeAdapter[Any]] = TypeAdapter(Any)
_CARRIED: Final = frozenset({str, bool, type(None), bytes, datetime, date, time, timedelta})
"""Classes whose values are written exactly, or refused by the serializer."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _Unknown:
    """The value of a JSON part that has no counterpart in the original value: only the JSON can be checked."""


_UNKNOWN: Final = _Unknown()


class _Number(NamedTuple):
    """A JSON number as written."""

    text: str


class _Object(list[tuple[str, Any]]):
    """A JSON object as pairs, so that a repeated key is kept."""


class _Lost(Exception):
    """A loss, found in a part of the value. `steps`: its path, innermost step first."""

    def __init__(self, code: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.code, self.message, self.fix = code, message, fix
        self.steps: list[str] = []

    def flaw(self) -> Flaw:
        """Return the loss as a flaw that names the path."""
        path = ".".join(step for step in reversed(self.steps) if step) or "(document)"
        return Flaw(self.code, f"{self.message} at {path!r}; {self.fix}")


_parser = json.JSONDecoder(object_pairs_hook=_Object, parse_int=_Number, parse_float=_Number, strict=False)


def compare_with_json(value: Any, data: bytes) -> bytes | Flaw:
    """Return the JSON of a value with its sets sorted; or a flaw: `bad_number`, `bad_value` or `duplicate_key`."""
    try:
        written = _parser.decode(data.decode())
        moved = _at("", value, written)
        return _text(written).encode() if moved else data
    except _Lost as lost:
        return lost.flaw()
    except RecursionError:
        return Flaw("too_deep", "the value is nested too deep to be compared with its JSON")


def needs_comparison(value: Any) -> bool:
    """Whether a part of a value may be written inexactly, so that it has to be compared."""
    below = [value]
    for item in below:  # grows
        kind = item.__class__
        if kind in _CARRIED:
            continue
        if kind is dict:
            if any(key.__class__ is not str for key in item):
                return True
            below.extend(item.values())
        elif kind is list or kind is tuple:
            below.extend(item)
        elif kind is float:
            if not math.isfinite(item):
                return True
        elif kind is int:
            if not INTEGER_MIN <= item <= INTEGER_MAX:
                return True
        elif isinstance(item, BaseModel):
            extra = item.model_extra or {}
            if _may_repeat(kind, extra):
                return True
            below.extend(vars(item).values())
            below.extend(extra.values())
        else:
            return True
    return False


def _may_repeat(cls: type[BaseModel], extra: Mapping[str, Any]) -> bool:
    """Whether two fields of a model, including extra fields, may be written under one name."""
    names = _names_of(cls)
    return names is None or (bool(extra) and not names.isdisjoint(extra))


@lru_cache(maxsize=4_096)
def _names_of(cls: type[BaseModel]) -> frozenset[str] | None:
    """Return the names under which a class writes its fields, by alias or not; None if two share one."""
    written = {name: each.serialization_alias or name for name, each in cls.model_fields.items() if not each.exclude}
    written |= {name: each.alias or name for name, each in cls.model_computed_fields.items()}
    return None if len(set(written.values())) < len(written) else frozenset((*written, *written.values()))


def find_unwritable(value: Any, *, strictly: bool = False) -> Flaw | None:
    """Return the flaw of the first part that cannot be written. `strictly`: by a serializer without pydantic."""
    try:
        _search(value, strictly, set(), utf8=True)
    except _Lost as lost:
        return lost.flaw()
    except RecursionError:
        return Flaw("unparseable", f"not JSON-able: nested deeper than {DEPTH_MAX}")
    return None


def path_of(value: Any, what: str, wanted: int) -> str:
    """Return the path of the object because of which a value cannot be written (`exact_serializer`).

    It is the object with this id, else the first with this loss, else an iterator, which may have yielded it.
    """
    for is_it in (lambda each: id(each) == wanted, lambda each: is_lossy(what, each), _is_spent):
        try:
            steps = _way(value, is_it, set())
        except RecursionError:
            break
        if steps is not None:
            return ".".join(steps) or "(document)"
    return "(document)"


def _is_spent(value: Any) -> bool:
    return isinstance(value, Iterator)


def _way(value: Any, is_it: Callable[[Any], bool], above: set[int]) -> list[str] | None:
    """Return the steps to the first part of a value for which `is_it` is true."""
    value = value.root if _is_root(value) else value
    if is_it(value):
        return []
    if isinstance(value, _TEXTS) or id(value) in above:
        return None
    if isinstance(value, Mapping) and any(is_it(key) for key in value):
        return ["(key)"]
    if isinstance(value, BaseModel | Mapping) or is_dataclass(value) or isinstance(value, _LISTS):
        for name, member in _below(value, strictly=False):
            steps = _way(member, is_it, above | {id(value)})
            if steps is not None:
                return [name, *steps] if name else steps
    return None


# ---------------------------------------------------------------------------------------------------------- comparison


def _compare(value: Any, written: Any) -> bool:
    """Compare, and sort sets in `written`. Returns whether their order changed. Raises _Lost."""
    if written.__class__ is _Number:
        _compare_number(value, written.text)
    elif written.__class__ is str:
        _compare_text(value, written)
    elif written.__class__ is _Object:
        return _compare_object(value, written)
    elif written.__class__ is list:
        return _compare_array(value, written)
    elif written.__class__ is float or (written is None and _is_no_number(value)):
        raise _Lost("bad_number", "NaN and infinity are no JSON numbers", "use None, or a text")
    return False


def _is_no_number(value: Any) -> bool:
    return isinstance(value, float | Decimal) and not math.isfinite(value)


def _compare_number(value: Any, text: str) -> None:
    if text.lstrip("-").isdigit():
        if len(text) > 20 or not INTEGER_MIN <= int(text) <= INTEGER_MAX:
            what = f"an integer of {len(text.lstrip('-'))} digits does not fit 64 bits"
            raise _Lost("bad_number", what, "declare it to be written as text: Annotated[int, PlainSerializer(str)]")
    elif math.isinf(float(text)):
        raise _Lost("bad_number", f"number {text[:40]} is beyond what a double can hold", "write it as text")
    if isinstance(value, Decimal | int) and Decimal(text) != value and float(value) == float(text):  # it is converted
        raise _Lost("bad_number", f"{type(value).__name__} is rounded by its serializer", "write it as text")
    if isinstance(value, timedelta | datetime) and not _is_time(value, Decimal(text)):
        what = f"{type(value).__name__} is rounded to a number"
        raise _Lost("bad_number", what, "remove ser_json_temporal and ser_json_timedelta: ISO 8601 is exact")


def _is_time(value: timedelta | datetime, number: Decimal) -> bool:
    """Whether a number of seconds or milliseconds equals this time to the microsecond."""
    if isinstance(value, datetime):
        value = (value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH
    return value // _MICROSECOND in (number * 1_000_000, number * 1_000)


def _compare_text(value: Any, text: str) -> None:
    if isinstance(value, Pattern) and text == value.pattern and value.flags not in (0, 32):  # 32: of every text
        raise _Lost("bad_value", "a pattern is written without its flags", "write the flags in it, such as (?i)")


def _compare_key(key: Any, text: str) -> None:
    number = key.value if isinstance(key, Enum) else key
    if isinstance(number, float) and not math.isfinite(number) and text in ("nan", "inf", "-inf", "NaN"):
        raise _Lost("bad_number", "NaN and infinity are no JSON numbers, here as a key", "use a text as key")
    if (key is None or isinstance(key, tuple | frozenset)) and text in orjson.loads(_ANYTHING.dump_json({key: 0})):
        what = f"a key that is a {type(key).__name__} would be written as the text {text[:64]!r}"
        raise _Lost("bad_value", what, "use texts or numbers as keys")
    _compare_text(key, text)


def _compare_object(value: Any, written: _Object) -> bool:
    keys = {key for key, _ in written}
    if len(keys) != len(written):
        twice = next(key for n, (key, _) in enumerate(written) if key in [other for other, _ in written[:n]])
        raise _repeated_key_loss(value, twice)
    moved = False
    found = {key: (name, member) for key, name, member in _members(value, written)}
    for key, below in written:
        name, member = found.get(key, (key, _UNKNOWN))
        moved |= _at(name, member, below)
    return moved


def _repeated_key_loss(value: Any, key: str) -> _Lost:
    """Return the loss for a key that is written twice: of a mapping, or the name of two fields."""
    what = f"key {key[:64]!r} would be written twice"
    if isinstance(value, Mapping) and not all(isinstance(each, str) for each in value):
        return _Lost("duplicate_key", what, "keep keys apart as texts")
    lost = _Lost("duplicate_key", what, "give each field a name of its own")
    lost.steps.append(key[:64])
    return lost


def _compare_array(value: Any, written: list[Any]) -> bool:
    value = value.root if _is_root(value) else value
    if not isinstance(value, _LISTS) or isinstance(value, _TEXTS) or len(value) != len(written):
        value = [_UNKNOWN] * len(written)
    moved = False
    for n, (member, below) in enumerate(zip(value, written, strict=True)):
        moved |= _at(str(n), member, below)
    if isinstance(value, _SETS):
        ordered = sorted(written, key=_text)
        moved |= ordered != written
        written[:] = ordered
    return moved


def _at(name: str, value: Any, written: Any) -> bool:
    try:
        return _compare(value.root if _is_root(value) else value, written)
    except _Lost as lost:
        lost.steps.append(name)
        raise


def _members(value: Any, written: _Object) -> Iterator[tuple[str, str, Any]]:
    """Yield the members of a value: key as written, name for error messages, value."""
    value = value.root if _is_root(value) else value
    if isinstance(value, Mapping):
        if len(value) == len(written):
            for (key, _), (name, member) in zip(written, value.items(), strict=True):
                _compare_key(name, key)
                yield key, str(name), member
        return
    for name, field in getattr(type(value), "__pydantic_fields__", {}).items():
        if hasattr(value, name):
            yield field.serialization_alias or field.alias or name, name, getattr(value, name)
    if isinstance(value, BaseModel):
        for name, computed in type(value).model_computed_fields.items():
            yield computed.alias or name, name, getattr(value, name)
        for name, member in (value.model_extra or {}).items():
            yield name, name, member
    elif hasattr(value, "__pydantic_decorators__"):  # a dataclass of pydantic
        for name, decorator in value.__pydantic_decorators__.computed_fields.items():
            yield decorator.info.alias or name, name, getattr(value, name)
    elif is_dataclass(value) and not hasattr(value, "__pydantic_fields__"):
        yield from ((field.name, field.name, getattr(value, field.name)) for field in fields(value))


def _is_root(value: Any) -> bool:
    return isinstance(value, BaseModel) and type(value).__pydantic_root_model__


def _text(written: Any) -> str:
    """Return JSON as it was written: numbers keep their digits."""
    if written.__class__ is _Number:
        return str(written.text)
    if written.__class__ is _Object:
        return "{" + ",".join(f"{_text(key)}:{_text(below)}" for key, below in written) + "}"
    if written.__class__ is list:
        return "[" + ",".join(_text(below) for below in written) + "]"
    return orjson.dumps(written).decode()


# ------------------------------------------------------------------------------------------------- unwritable values


def _search(value: Any, strictly: bool, above: set[int], *, utf8: bool) -> None:
    """Raise _Lost at the first part that cannot be written."""
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, bytes | bytearray):
        _check_bytes(value, strictly, utf8)
    elif isinstance(value, BaseModel | Mapping) or is_dataclass(value) or isinstance(value, _LISTS):
        if id(value) in above:
            raise _Lost("unparseable", "the value holds itself", "hand over values that end")
        if strictly and isinstance(value, _SETS):
            raise _not_json(value, "use a sorted list")
        if isinstance(value, BaseModel):
            utf8 = value.model_config.get("ser_json_bytes", "utf8") == "utf8"
            strictly = False
        above.add(id(value))
        for name, member in _below(value, strictly):
            try:
                _search(member, strictly, above, utf8=utf8)
            except _Lost as lost:
                lost.steps.append(name)
                raise
        above.remove(id(value))
    else:
        _check_leaf(value, strictly)


def _below(value: Any, strictly: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, member in value.items():
            if strictly and not isinstance(key, str):
                raise _Lost("unparseable", f"not JSON-able: key {key!r:.40} is no text", "use texts as keys")
            if isinstance(key, str):
                _check_text(key)
            yield str(key), member
    elif isinstance(value, _LISTS):
        yield from ((str(n), member) for n, member in enumerate(value))
    else:
        yield from ((name, member) for _, name, member in _members(value, _Object()))


def _check_text(value: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        what = f"not JSON-able: a lone surrogate at character {error.start} of a text"
        raise _Lost("unparseable", what, "decode the text with errors='replace'") from None


def _check_bytes(value: bytes | bytearray, strictly: bool, utf8: bool) -> None:
    if strictly:
        raise _not_json(value, "encode them as text, such as base64")
    try:
        if utf8:
            value.decode()
    except UnicodeDecodeError as error:
        fix = "declare an encoding: model_config = ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')"
        raise _Lost("unparseable", f"not JSON-able: byte {error.start} is not UTF-8", fix) from None


def _check_leaf(value: Any, strictly: bool) -> None:
    if strictly and isinstance(value, int) and not INTEGER_MIN <= value <= INTEGER_MAX:
        _compare_number(value, str(value))
    try:
        if strictly:
            orjson.dumps(value)
        else:
            _dump(value)
    except (TypeError, ValueError, RecursionError, PydanticUserError):
        raise _not_json(value, "convert it to a text or a number, or declare it in a model") from None


def _dump(value: Any) -> None:
    """Write a value as its class or by inspection. Raises where neither is possible."""
    try:
        _ANYTHING.dump_json(value)
    except (TypeError, ValueError):
        TypeAdapter(value.__class__).dump_json(value)


def _not_json(value: Any, fix: str) -> _Lost:
    return _Lost("unparseable", f"not JSON-able: {type(value).__name__} has no JSON form", fix)
