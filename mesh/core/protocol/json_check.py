"""Strict JSON: orjson as the only parser, plus the checks that no common parser makes.

orjson refuses NaN, Infinity, lone surrogates, a BOM and trailing bytes. Like all common parsers it accepts duplicate
keys (the last one wins) and integers beyond 64 bits (as floats, which lose digits). Two readers could then see two
different documents, so both are refused here. Nesting is limited for readers that recurse.
"""

import json
import re
from typing import Any, Final, NamedTuple

import orjson

DEPTH_MAX: Final = 32
_KEY_END = re.compile(rb'(?<!\\)"\s*:')
_LONG_DIGITS: Final = b"0" * 19
_DIGITS_ALIKE: Final = bytes.maketrans(b"123456789", b"000000000")
_BEGINS_LONG: Final = b":" + _LONG_DIGITS
_SIGNS_ALIKE: Final = bytes.maketrans(b"123456789-+.eE[, \t\n\r", b"0" * 14 + b":" * 6)
"""Maps every character of a number to `0`, and every character that may precede one to `:`."""
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1
_NESTS: Final = frozenset({dict, list})
_BOM: Final = b"\xef\xbb\xbf"


class Flaw(NamedTuple):
    """A defect of a body: reason code and sentence."""

    code: str
    message: str


def parse_strict(data: bytes) -> Any | Flaw:
    """Return the parsed document, or its flaw. Never raises."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _classify(data, error)
    depth, keys = _measure(value)
    if depth > DEPTH_MAX:
        return Flaw("too_deep", f"the document is nested {depth} deep; at most {DEPTH_MAX}")
    # Every key has a colon. With as many colons as keys, no key is repeated and no text contains a colon.
    if (data.count(b":") != keys and _keys_written(data) != keys) or has_long_number(data):
        flaw = _second_look(data)
        if flaw is not None:
            return flaw
    return value


def _measure(value: Any) -> tuple[int, int]:
    """Return nesting and number of keys, without recursion."""
    depth = keys = 0
    level: list[Any] = [value] if value.__class__ in _NESTS else []
    while level:
        depth += 1
        below: list[Any] = []
        for item in level:
            members = item
            if item.__class__ is dict:
                keys += len(item)
                members = item.values()
            for member in members:
                if member.__class__ in _NESTS:
                    below.append(member)
        level = below
    return depth, keys


def _keys_written(data: bytes) -> int:
    """Count the keys in the text; -1 where a quick scan cannot tell (a string that ends in a backslash)."""
    if b'\\\\"' in data:
        return -1
    if b" :" in data or b"\n:" in data or b"\r:" in data or b"\t:" in data:
        return len(_KEY_END.findall(data))
    return data.count(b'":') - data.count(b'\\":')


def has_long_digits(data: bytes) -> bool:
    """Whether the text contains a run of digits that may be an integer beyond 64 bits."""
    return data.translate(_DIGITS_ALIKE).find(_LONG_DIGITS) >= 0


def has_long_number(data: bytes) -> bool:
    """As `has_long_digits`, but ignores most digits inside strings."""
    alike = data.translate(_SIGNS_ALIKE)
    return alike.find(_BEGINS_LONG) >= 0 or alike.startswith(_LONG_DIGITS)


class _Flawed(ValueError):
    """Carries a flaw out of the standard library's parser."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.flaw = Flaw(code, message)


def _pairs(items: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in items:
        if key in seen:
            raise _Flawed("duplicate_key", f"key {key[:64]!r} stands twice in one object")
        seen.add(key)


def _integer(digits: str) -> int:
    if len(digits) <= 20 and INTEGER_MIN <= int(digits) <= INTEGER_MAX:
        return 0
    raise _Flawed("bad_number", f"an integer of {len(digits.lstrip('-'))} digits does not fit 64 bits; send it as text")


def _float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise _Flawed("bad_number", f"number {digits[:40]} is beyond what a double can hold")
    return number


def _constant(name: str) -> None:
    raise _Flawed("bad_number", f"{name} is no JSON number")


_parser = json.JSONDecoder(object_pairs_hook=_pairs, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _second_look(data: bytes) -> Flaw | None:
    """Return the flaw that a slower parser with hooks finds in a document that orjson accepted."""
    try:
        _parser.decode(data.decode())
    except _Flawed as found:
        return found.flaw
    return None


def _classify(data: bytes, error: orjson.JSONDecodeError) -> Flaw:
    """Explain why orjson refused. Its message differs between releases, so the code never depends on it."""
    if not data.strip():
        return Flaw("empty_value", "the body is empty; expected a JSON document")
    if data.startswith(_BOM):
        return Flaw("unparseable", "the body begins with a byte order mark; JSON has none")
    try:
        _parser.decode(data.decode())
    except _Flawed as found:
        return found.flaw
    except RecursionError:
        return Flaw("too_deep", f"the document is nested beyond what the parser takes; at most {DEPTH_MAX}")
    except UnicodeDecodeError as bad:
        return Flaw("unparseable", f"the body is not UTF-8: {bad.reason} at byte {bad.start}")
    except json.JSONDecodeError as bad:
        return Flaw("unparseable", f"the body is not JSON: {bad.msg} at character {bad.pos}")
    if b"\\u" in data:  # the slower parser accepts lone surrogates
        return Flaw("bad_string", f"a string is not valid Unicode: {error.msg}")
    return Flaw("unparseable", f"the body is not JSON: {error.msg}")
