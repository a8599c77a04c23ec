"""Is this body good JSON? One parser everywhere (orjson), and the checks that no common parser makes.

orjson refuses NaN, Infinity, lone surrogates, a BOM and trailing bytes, but like all of them takes duplicate keys
(the last one wins), so two readers may see two documents. Nesting is limited for readers that recurse.
"""

import json
import re
from typing import Any, Final, NamedTuple

import orjson

DEPTH_MAX: Final = 32
_KEY_END = re.compile(rb'(?<!\\)"\s*:')


class Flaw(NamedTuple):
    """What is wrong with a body: reason code and sentence."""

    code: str
    message: str


def check(data: bytes) -> Any | Flaw:
    """The parsed document, or the flaw that speaks against it."""
    if not data.strip():
        return Flaw("empty_value", "the body is empty; expected a JSON document")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        return _classify(data, error)
    depth, keys = _measure(value)
    if depth > DEPTH_MAX:
        return Flaw("too_deep", f"the document is nested {depth} deep; at most {DEPTH_MAX}")
    if _keys_written(data) != keys:
        repeated = _repeated_key(data)
        if repeated is not None:
            return Flaw("duplicate_key", f"key {repeated!r} stands twice in one object")
    return value


def _measure(value: Any) -> tuple[int, int]:
    """Nesting and number of keys, without recursion."""
    deepest = keys = 0
    level = [value]
    while True:
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                keys += len(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not any(isinstance(item, dict | list) for item in level):
            return deepest, keys
        deepest += 1
        level = below


def _keys_written(data: bytes) -> int:
    """Keys that stand in the text; -1 where a quick look cannot tell (a string that ends in a backslash)."""
    return -1 if b'\\\\"' in data else len(_KEY_END.findall(data))


class _RepeatedKey(ValueError):
    pass


def _repeated_key(data: bytes) -> str | None:
    def pairs(items: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                raise _RepeatedKey(key)
            seen.add(key)

    try:
        json.loads(data, object_pairs_hook=pairs)
    except _RepeatedKey as repeated:
        return str(repeated)
    return None


def _classify(data: bytes, error: orjson.JSONDecodeError) -> Flaw:
    """Why orjson refused: numbers and nesting have codes of their own."""
    if "recursion" in error.msg.lower():
        return Flaw("too_deep", f"the document is nested beyond what the parser takes; at most {DEPTH_MAX}")
    try:
        json.loads(data)
    except RecursionError:
        return Flaw("too_deep", f"the document is nested beyond what the parser takes; at most {DEPTH_MAX}")
    except UnicodeDecodeError as bad:
        return Flaw("unparseable", f"the body is not UTF-8: {bad.reason} at byte {bad.start}")
    except json.JSONDecodeError as bad:
        return Flaw("unparseable", f"the body is not JSON: {bad.msg} at byte {bad.pos}")
    except ValueError:
        return Flaw("bad_number", "a number has too many digits")
    if b"\\u" in data and "surrogate" in error.msg:
        return Flaw("bad_string", f"a string is not valid Unicode: {error.msg}")
    return Flaw("bad_number", "a number is NaN or infinite, which JSON does not have")
