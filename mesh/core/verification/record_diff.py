"""Diff two records that should be equal. For display only."""

from collections.abc import Callable, Iterator
from itertools import islice, zip_longest
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.protocol.record import Headers

SHOWN_MAX: Final = 12
"""Limit of differences shown for a pair of records."""
CHARS_MAX: Final = 200
"""Limit for one side of a difference."""
SAME_CHARS_MAX: Final = 32
"""Sides that begin with more equal characters than this are shown from shortly before their first difference."""
CONTEXT_CHARS: Final = 16
"""Equal characters that are shown then."""
MISSING: Final = "(nothing)"


class Difference(NamedTuple):
    """One difference. `place`: `key`, `header NAME`, `value`, or a field such as `value.results[0].type`."""

    place: str
    expected: str
    got: str


def record_differences(
    expected: tuple[bytes | None, bytes | None, Headers], got: tuple[bytes | None, bytes | None, Headers]
) -> list[Difference]:
    """Return the differences of two records, each given as (key, value, headers); at most `SHOWN_MAX`."""
    return list(islice(_all(expected, got), SHOWN_MAX))


def _all(
    expected: tuple[bytes | None, bytes | None, Headers], got: tuple[bytes | None, bytes | None, Headers]
) -> Iterator[Difference]:
    if expected[0] != got[0]:
        yield Difference("key", *_cut(_text(expected[0]), _text(got[0])))
    ours, theirs = dict(expected[2]), dict(got[2])
    for name in dict.fromkeys((*ours, *theirs)):
        if name not in ours or name not in theirs or ours[name] != theirs[name]:
            sides = [_text(side[name]) if name in side else MISSING for side in (ours, theirs)]
            yield Difference(f"header {name}", *_cut(*sides))
    if ours == theirs and list(expected[2]) != [tuple(header) for header in got[2]]:
        names = [", ".join(name for name, _ in headers) for headers in (expected[2], got[2])]
        yield Difference("order of headers", *_cut(*names))
    if expected[1] != got[1]:
        yield from _values(expected[1], got[1])


def _values(expected: bytes | None, got: bytes | None) -> Iterator[Difference]:
    try:
        ours, theirs = orjson.loads(expected or b""), orjson.loads(got or b"")
    except orjson.JSONDecodeError:
        yield Difference("value", *_cut(_text(expected), _text(got)))
        return
    if ours == theirs:
        yield Difference("value (as bytes)", *_cut(_text(expected), _text(got)))
    yield from value_differences("value", ours, theirs)


def value_differences(
    place: str,
    expected: Any,
    got: Any,
    ignored: Callable[[tuple[str | int, ...]], bool] = lambda steps: False,
    equal: Callable[[str, Any, Any], bool] = lambda place, one, other: False,
) -> Iterator[Difference]:
    """Yield the differences of two parsed JSON values. `place`: name of the values. `ignored` is asked for each pair
    of inner values, with the steps that lead to it; what it covers may differ. `equal` is
    asked for each place that differs, with both values; it may call them equal."""
    todo: list[tuple[str, tuple[str | int, ...], Any, Any]] = [(place, (), expected, got)]
    while todo:
        place, steps, one, other = todo.pop(0)
        if ignored(steps):
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            keys = dict.fromkeys((*one, *other))
            todo += [(f"{place}.{key}", (*steps, key), one.get(key, _ABSENT), other.get(key, _ABSENT)) for key in keys]
        elif isinstance(one, list) and isinstance(other, list):
            pairs = zip_longest(one, other, fillvalue=_ABSENT)
            todo += [(f"{place}[{n}]", (*steps, n), *pair) for n, pair in enumerate(pairs)]
        elif (one != other or type(one) is not type(other)) and (
            other is _ABSENT or one is _ABSENT or not equal(place, one, other)
        ):
            yield Difference(place, *_cut(*(MISSING if side is _ABSENT else _json(side) for side in (one, other))))


_ABSENT: Final = object()


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _text(value: bytes | None) -> str:
    return "(none)" if value is None else value.decode("utf-8", "backslashreplace")


def _cut(one: str, other: str) -> tuple[str, str]:
    """Cut two sides to `CHARS_MAX`, so that their first difference is in both."""
    pairs = enumerate(zip(one, other, strict=False))
    same = next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))
    if same > SAME_CHARS_MAX:
        one, other = (f"…{side[same - CONTEXT_CHARS :]}" for side in (one, other))
    cut = [side if len(side) <= CHARS_MAX else f"{side[: CHARS_MAX - 1]}…" for side in (one, other)]
    return cut[0], cut[1]
