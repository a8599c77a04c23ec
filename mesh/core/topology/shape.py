"""Convert values of the mesh's classes to plain JSON values and back. Converters are compiled from type hints. Pure.

    writer = Shapes()
    plain = writer.plain(Run)(run)          # lists, texts, numbers: ready for orjson
    reader = Shapes(fields=writer.fields)   # names of the fields at the time of writing
    run = reader.value(Run)(plain)

Dataclasses and NamedTuples become lists in the order of their fields. The names are stored once, beside the lists, so
that a field that was added later takes its default. A removed field, or a new one without a default, raises
`ShapeUnknown`. Bytes become text if they are UTF-8, else base64 in a list. Repeated texts and tuples of texts are
shared between the values that one reader makes.
"""

import typing
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING
from dataclasses import Field as DataField
from functools import lru_cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Final, NamedTuple, cast

import orjson

Convert = Callable[[Any], Any]
Special = Mapping[type, tuple[Convert, Convert]]
"""Class → its two converters, for writing and for reading, where the fields of the class do not define them."""

SHARED_MAX: Final = 256
"""The largest number of distinct shared values of one field. It bounds the table: ids never recur."""
_PLAIN: Final = frozenset({str, int, float, bool, NoneType})
_MAPPINGS: Final = frozenset({dict, Mapping})
_SETS: Final = frozenset({set, frozenset})
"""Types of sets. Their items are texts or numbers."""


class ShapeUnknown(ValueError):
    """An error: the values were written by a version of the code whose classes had other fields."""


class _Member(NamedTuple):
    """One field of a class. `default` makes its default value. None: it has no default."""

    name: str
    hint: Any
    default: Callable[[], Any] | None


class Shapes:
    """A set of converters, each made at its first use.

    `fields`: the field names of each class when the values were written. Default: the names in the present code.
    """

    def __init__(self, *, fields: Mapping[str, Sequence[str]] | None = None, special: Special | None = None) -> None:
        self._stored = fields
        self._special = special or {}
        self._plain: dict[Any, Convert | None] = {}
        self._value: dict[Any, Convert | None] = {}
        self.fields: dict[str, list[str]] = {}
        """Class → names of its fields, for all classes that were written. Store it beside the values."""

    def plain(self, hint: Any) -> Convert:
        """Return the converter that writes values of this type. Raises TypeError for an unsupported type."""
        return self._to_plain(hint) or _same

    def value(self, hint: Any) -> Convert:
        """Return the converter that reads values of this type. Raises TypeError, ShapeUnknown."""
        return self._to_value(hint) or _same

    # -------------------------------------------------------------------------------------------------------- writing

    def _to_plain(self, hint: Any) -> Convert | None:
        """Return the converter, or None if such values stay as they are."""
        if hint not in self._plain:
            self._plain[hint] = self._make_plain(hint)
        return self._plain[hint]

    def _make_plain(self, hint: Any) -> Convert | None:
        if hint in _PLAIN:
            return None
        if hint is bytes:
            return _text_of
        if hint in self._special:
            return self._special[hint][0]
        if _is_row(hint):
            return self._row_to_plain(hint)
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if _is_optional(origin, inner):
            return _unless_none(self._to_plain(_present(inner)))
        if origin in (tuple, list):
            return _each(origin, [self._to_plain(arg) for arg in inner if arg is not Ellipsis], inner)
        if origin in _SETS:
            return sorted
        if origin in _MAPPINGS:
            key, item = self._to_plain(inner[0]), self._to_plain(inner[1])
            if inner[0] is str:
                return dict if item is None else _each_value(item)
            key, item = key or _same, item or _same
            return lambda value: [[key(name), item(one)] for name, one in value.items()]
        raise TypeError(
            f"a value of type {hint} cannot be written; known are plain values, bytes, tuples, lists, mappings"
        )

    def _row_to_plain(self, cls: type) -> Convert:
        members = _members(cls)
        self.fields[cls.__name__] = [member.name for member in members]
        steps = [(n, step) for n, m in enumerate(members) if (step := self._to_plain(m.hint)) is not None]
        if len(members) == 1:
            only, first = members[0].name, steps[0][1] if steps else _same
            return lambda value: [first(getattr(value, only))]
        every = attrgetter(*(member.name for member in members))
        if not steps:
            return every

        def write(value: Any) -> list[Any]:
            row = list(every(value))
            for n, step in steps:
                row[n] = step(row[n])
            return row

        return write

    # -------------------------------------------------------------------------------------------------------- reading

    def _to_value(self, hint: Any) -> Convert | None:
        if hint not in self._value:
            self._value[hint] = self._make_value(hint)
        return self._value[hint]

    def _make_value(self, hint: Any) -> Convert | None:
        if hint in _PLAIN:
            return None
        if hint is bytes:
            return _bytes_of
        if hint in self._special:
            return self._special[hint][1]
        if _is_row(hint):
            return self._row_to_value(hint)
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if _is_optional(origin, inner):
            return _unless_none(self._to_value(_present(inner)))
        if origin in (tuple, list):
            return _all_of(origin, [self._to_value(arg) for arg in inner if arg is not Ellipsis], inner)
        if origin in _SETS:
            return cast("Convert", origin)
        if origin in _MAPPINGS:
            key, item = self._to_value(inner[0]), self._to_value(inner[1])
            if inner[0] is str:
                return item and _each_value(item)
            key, item = key or _same, item or _same
            return lambda value: {key(name): item(one) for name, one in value}
        raise TypeError(f"a value of type {hint} cannot be read")

    def _row_to_value(self, cls: type) -> Convert:
        members = _members(cls)
        names = [member.name for member in members]
        stored = names if self._stored is None else list(self._stored.get(cls.__name__, ()))
        unknown = [name for name in stored if name not in names]
        needed = [member.name for member in members if member.default is None and member.name not in stored]
        if unknown or needed:
            text = f"has no field {', '.join(unknown)}" if unknown else f"needs {', '.join(needed)}, which is not there"
            raise ShapeUnknown(f"{cls.__name__} {text}")
        known = {member.name: member for member in members}
        steps = [(n, step) for n, name in enumerate(stored) if (step := self._field_to_value(known[name])) is not None]
        in_order = stored == names[: len(stored)]

        def read(row: list[Any]) -> Any:
            row = list(row)
            for n, step in steps:
                row[n] = step(row[n])
            return cls(*row) if in_order else cls(**dict(zip(stored, row, strict=True)))

        return read

    def _field_to_value(self, member: _Member) -> Convert | None:
        step = self._to_value(member.hint)
        if member.hint is str:
            return _Shared().get
        if member.hint == tuple[str, ...]:
            shared = _Shared()
            return lambda value: shared.get(tuple(value)) if value else ()
        if typing.get_origin(member.hint) is Mapping and member.default is not None:  # never changed, so it is shared
            convert, default = step or _same, member.default
            return lambda value: convert(value) if value else default()
        if _is_row(member.hint) and issubclass(member.hint, tuple) and member.default is not None and step is not None:
            return _or_default(step, self._to_plain(member.hint) or _same, member.default())
        return step


class _Shared:
    """A table that replaces equal values by one object."""

    def __init__(self) -> None:
        self._table: dict[Any, Any] = {}

    def get(self, value: Any) -> Any:
        """Return the first equal value that was given, else this one."""
        found = self._table.get(value)
        if found is None:
            if len(self._table) < SHARED_MAX:
                self._table[value] = value
            return value
        return found


@lru_cache(maxsize=256)
def _members(cls: type) -> tuple[_Member, ...]:
    hints = typing.get_type_hints(cls)
    if issubclass(cls, tuple):
        given = cls._field_defaults  # type: ignore[attr-defined]  # a NamedTuple
        names = cls._fields  # type: ignore[attr-defined]
        return tuple(_Member(name, hints[name], _constant(given[name]) if name in given else None) for name in names)
    fields: Mapping[str, DataField[Any]] = cls.__dataclass_fields__  # type: ignore[attr-defined]  # a dataclass
    return tuple(_Member(name, hints[name], _default(field)) for name, field in fields.items() if field.init)


def _default(field: "DataField[Any]") -> Callable[[], Any] | None:
    if field.default_factory is not MISSING:
        return field.default_factory
    return None if field.default is MISSING else _constant(field.default)


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _is_row(hint: Any) -> bool:
    return isinstance(hint, type) and (hasattr(hint, "__dataclass_fields__") or hasattr(hint, "_fields"))


def _is_optional(origin: Any, inner: Sequence[Any]) -> bool:
    return origin in (UnionType, typing.Union) and len(inner) == 2 and NoneType in inner


def _present(inner: Sequence[Any]) -> Any:
    return next(hint for hint in inner if hint is not NoneType)


def _same(value: Any) -> Any:
    return value


def _each_value(convert: Convert) -> Convert:
    return lambda value: {name: convert(one) for name, one in value.items()}


def _or_default(convert: Convert, write: Convert, default: Any) -> Convert:
    """Return the default itself if the default was written, so that all such values share one object."""
    usual = orjson.loads(orjson.dumps(write(default)))
    return lambda value: default if value == usual else convert(value)


def _unless_none(convert: Convert | None) -> Convert | None:
    return convert and (lambda value: None if value is None else convert(value))


def _each(origin: type, converts: Sequence[Convert | None], inner: Sequence[Any]) -> Convert | None:
    """Make the converter that writes sequences, or return None if their items stay as they are."""
    if not any(converts):
        return None
    if origin is list or (len(inner) == 2 and inner[1] is Ellipsis):
        convert = converts[0] or _same
        return lambda value: [convert(one) for one in value]
    every = [convert or _same for convert in converts]
    return lambda value: [convert(one) for convert, one in zip(every, value, strict=True)]


def _all_of(origin: type, converts: Sequence[Convert | None], inner: Sequence[Any]) -> Convert | None:
    if origin is tuple and not (len(inner) == 2 and inner[1] is Ellipsis):
        every = [convert or _same for convert in converts]
        return lambda value: tuple(convert(one) for convert, one in zip(every, value, strict=True))
    convert = converts[0]
    if convert is None:
        return tuple if origin is tuple else None
    return lambda value: origin([convert(one) for one in value])


def _text_of(data: bytes) -> str | list[str]:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return [b64encode(data).decode()]


def _bytes_of(plain: str | list[str]) -> bytes:
    return plain.encode() if isinstance(plain, str) else b64decode(plain[0], validate=True)
