"""Rules of the blackboard that all stores share: keys, values, versions, globs, arrays, counters and memory limits.

Stores that follow these rules and `adapters.ports.Board` behave alike.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from mesh.core.errors import BoardIncomplete, InvalidInput
from mesh.core.protocol import json_check
from mesh.core.text_glob import glob_test

KEY_CHARS_MAX: Final = 256
VALUE_BYTES_MAX: Final = 65_536
BY_CHARS_MAX: Final = 256
HISTORY_MAX: Final = 1_000
"""Past values kept per key."""
HISTORY_BYTES_MAX: Final = 1_048_576
"""Bytes of past values kept per key; the newest value always stays. Without this limit 1,000 appends to a full array
hold 64 MiB."""
OPS_MAX: Final = 10_000
"""Answers remembered per key: the latest ones."""
OPS_TTL_MS: Final = 86_400_000
"""Minimum time for which an answer is remembered, within OPS_MAX."""
COUNTER_MAX: Final = 2**53 - 1
"""Counters stay in ±COUNTER_MAX: every JSON reader and Lua hold these integers exactly."""

RESTORE_OP: Final = "rebuild/"
"""Prefix of the op_id of a write that restores a lost value."""

_NAME = re.compile(r"[A-Za-z0-9._:/-]+\Z")
_GLOB = re.compile(r"[A-Za-z0-9._:/*?-]+\Z")
_VERSION = re.compile(r"[A-Za-z0-9]{1,64}:[0-9]{1,19}\Z")
_COUNTER = re.compile(rb"[ \t\n\r]*(-?[0-9]+)[ \t\n\r]*\Z")
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{},]')


def check_key(key: str) -> None:
    """Raise InvalidInput `bad_key` unless `key` is `[A-Za-z0-9._:/-]{1,256}`. Slashes and dots are plain text."""
    _check_name(key, "bad_key", "board key")


def check_write(key: str, op_id: str = "", by: str = "") -> None:
    """Raise InvalidInput unless the key is valid, `op_id` empty or spelled like one, and `by` printable and short."""
    check_key(key)
    if op_id:
        _check_name(op_id, "bad_op_id", "op_id")
    if len(by) > BY_CHARS_MAX or not by.isprintable():
        raise InvalidInput(
            "the writer's name is not usable",
            code="bad_by",
            where="by",
            expected=f"at most {BY_CHARS_MAX} printable characters",
            got=_short(by),
            remedy="Name the agent or the person",
        )


def check_value(key: str, value: bytes) -> None:
    """Raise InvalidInput unless `value` is one JSON document of at most 64 KiB, nested at most 32 deep."""
    if not isinstance(value, bytes):
        raise InvalidInput(
            "a board value must be encoded",
            code="unparseable",
            where=key,
            expected="JSON as bytes",
            got=type(value).__name__,
            remedy="Encode it, e.g. orjson.dumps(value)",
        )
    if len(value) > VALUE_BYTES_MAX:
        raise too_large(key, len(value))
    found = json_check.parse_strict(value)
    if isinstance(found, json_check.Flaw):
        raise InvalidInput(
            f"board value refused: {found.message}",
            code=found.code,
            where=key,
            remedy="Write one JSON document",
        )


def check_lease(key: str, value: bytes, ttl_ms: int) -> None:
    """Raise InvalidInput for an invalid key or value, or for a `ttl_ms` below 1."""
    check_key(key)
    check_value(key, value)
    if ttl_ms < 1:
        raise InvalidInput(
            "a lease must last",
            code="bad_limit",
            where=key,
            expected="ttl_ms of at least 1",
            got=str(ttl_ms),
            remedy="Give how long it stands",
        )


def check_item(key: str, item: bytes, items_max: int) -> bytes:
    """Return the item as the array at `key` will hold it. Raise InvalidInput for an item that no array can hold."""
    check_value(key, item)
    check_value(key, b"[" + item + b"]")  # the array is a value, too: one level deeper, two bytes longer
    if items_max < 1:
        raise InvalidInput(
            "an array must be allowed to hold something",
            code="bad_limit",
            where=key,
            expected="items_max of at least 1",
            got=str(items_max),
            remedy="Give how many items to keep",
        )
    return item.strip()


def check_expect(expect: str, *, wildcards: tuple[str, ...]) -> None:
    """Raise InvalidInput `bad_version` unless `expect` is one of `wildcards` or reads `incarnation:counter`."""
    if expect not in wildcards and not _VERSION.match(expect):
        raise InvalidInput(
            "that is no version of a board entry",
            code="bad_version",
            where="expect",
            expected="incarnation:counter, as in an entry's version",
            got=_short(expect),
            remedy="Hand on the version that get or put answered",
        )


def check_counter(key: str, amount: int, value_min: int | None, value_max: int | None) -> tuple[int, int]:
    """Return the lowest and the highest value allowed. Raise InvalidInput `bad_number` beyond ±(2**53 - 1)."""
    low = -COUNTER_MAX if value_min is None else value_min
    high = COUNTER_MAX if value_max is None else value_max
    for name, number in (("amount", amount), ("value_min", low), ("value_max", high)):
        if abs(number) > COUNTER_MAX:
            raise InvalidInput(
                f"{name} is too large for a counter",
                code="bad_number",
                where=key,
                expected=f"-{COUNTER_MAX}..{COUNTER_MAX}",
                got=str(number) if abs(number) < 10**40 else "a number of more than 40 digits",
                remedy="Count in larger units",
            )
    return low, high


def check_limit(limit: int) -> int:
    """Return the number of past values to answer: `limit`, at most HISTORY_MAX. Raise InvalidInput below 1."""
    if limit < 1:
        raise InvalidInput(
            "nothing was asked for",
            code="bad_limit",
            where="limit",
            expected=f"1..{HISTORY_MAX}",
            got=str(limit),
            remedy="Ask for one entry at least",
        )
    return min(limit, HISTORY_MAX)


def counter_of(key: str, value: bytes | None) -> int:
    """Return the integer in the value at `key`, 0 without a value. Raise InvalidInput `not_a_counter`."""
    found = _COUNTER.match(b"0" if value is None else value)
    if found is None or len(found[1]) > 17 or abs(number := int(found[1])) > COUNTER_MAX:
        raise not_a_counter(key)
    return number


def pushed(key: str, array: bytes | None, items: int | None, item: bytes, items_max: int) -> tuple[bytes, int]:
    """Append `item` to the JSON array at `key`, drop the oldest beyond `items_max`; return the array with its length.

    `array` is valid JSON or None (no value yet); `items` is its length if known, which avoids a count. The text itself
    is edited, so the other items keep their spelling. Raise InvalidInput `not_an_array`, `too_large`.
    """
    body = b"" if array is None else array.strip()
    if body and body[:1] != b"[":
        raise not_an_array(key)
    body = body[1:-1].strip()
    count = 1 + sum(1 for _ in _commas(body)) if items is None else items
    surplus = count + 1 - items_max
    if not body or surplus >= count:
        return b"[" + item + b"]", 1
    for cut, comma in enumerate(_commas(body), start=1) if surplus > 0 else ():
        if cut == surplus:
            body = body[comma + 1 :].lstrip()
            break
    pushed = b"[" + body + b"," + item + b"]"
    if len(pushed) > VALUE_BYTES_MAX:
        raise too_large(key, len(pushed))
    return pushed, count + 1 - max(surplus, 0)


def _commas(body: bytes) -> Iterator[int]:
    """Yield the positions of the commas between the items of an array, given the text between its brackets."""
    depth = 0
    for token in _TOKEN.finditer(body):
        kind = token[0]
        if kind == b"," and not depth:
            yield token.start()
        elif kind in (b"[", b"{"):
            depth += 1
        elif kind in (b"]", b"}"):
            depth -= 1


def glob(pattern: str) -> Callable[[str], bool]:
    """Return a function that tests whether a key matches the pattern.

    `*` is any sequence of characters (slashes too), `?` is one character; nothing else is special. A test takes time
    linear in the key for each star of the pattern. Raises InvalidInput `bad_pattern` if no key can match.
    """
    if len(pattern) > KEY_CHARS_MAX or not _GLOB.match(pattern):
        raise InvalidInput(
            "that pattern can match no board key",
            code="bad_pattern",
            where="pattern",
            expected=f"1..{KEY_CHARS_MAX} characters of A-Z a-z 0-9 . _ : / - and the wildcards * ?",
            got=_short(pattern),
            remedy="Write * for any run of characters and ? for one",
        )
    return glob_test(pattern)


def glob_prefix(pattern: str) -> str:
    """Return the text with which every matching key begins."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


def too_large(key: str, size: int) -> InvalidInput:
    """Return the error for a value, or for an array after an append, that is over the limit."""
    return InvalidInput(
        "a board value is too large",
        code="too_large",
        where=key,
        expected=f"at most {VALUE_BYTES_MAX} bytes",
        got=str(size),
        remedy="Keep large data elsewhere and its address here, or lower items_max",
    )


def not_an_array(key: str) -> InvalidInput:
    """Return the error for an append to a value that is no array."""
    return InvalidInput(
        "the value there is no array",
        code="not_an_array",
        where=key,
        expected="a JSON array, or no value",
        remedy="Append under another key, or put an array there first",
    )


def not_a_counter(key: str) -> InvalidInput:
    """Return the error for an addition to a value that is no integer."""
    return InvalidInput(
        "the value there is no counter",
        code="not_a_counter",
        where=key,
        expected=f"an integer in -{COUNTER_MAX}..{COUNTER_MAX}, or no value",
        remedy="Count under another key, or put an integer there first",
    )


def op_reused(key: str, op_id: str, first: str) -> InvalidInput:
    """Return the error for an op_id that was used for another kind of write, and so is no repetition."""
    return InvalidInput(
        f"op_id {op_id!r} was used for another kind of write on this key",
        code="op_id_reused",
        where=key,
        expected=first,
        remedy="Give each write its own op_id, and repeat it only with the same call",
    )


def incomplete(key: str, url: str) -> BoardIncomplete:
    """Return the error for a write that depends on the value at `key`, which the store may have lost."""
    return BoardIncomplete(
        f"the write to {key!r} depends on a value that may have been lost: the store restarted or was emptied",
        where=url,
        remedy="Try again: a worker puts lost values back within seconds; `mesh board rebuild` shows them",
    )


def _check_name(name: str, code: str, what: str) -> None:
    if not 1 <= len(name) <= KEY_CHARS_MAX or not _NAME.match(name):
        raise InvalidInput(
            f"{what} is not usable",
            code=code,
            where=what,
            expected=f"1..{KEY_CHARS_MAX} characters of A-Z a-z 0-9 . _ : / -",
            got=_short(name),
            remedy="Use those characters only",
        )


def _short(text: str) -> str:
    return ascii(text if len(text) <= 80 else f"{text[:80]}…")
