"""Mask secrets in text that people read, before it leaves the process.

This is the only redaction of the mesh: errors, log lines, stacks of dead letters, spans and settings pass through it.
`secret_formats.FORMATS` lists what is masked. Time is bounded for any input: a text is cut to CHARS_MAX before it is
searched, and each format is linear in the length of the text.
"""

import re
from collections.abc import Mapping, Set, Sized
from functools import cache, lru_cache
from itertools import groupby
from operator import add
from typing import Any, Final

from mesh.core.secret_formats import FORMATS, HIDDEN, SECRET_NAME

CHARS_MAX: Final = 65_536
"""Limit for one text, and for all texts in one value. Characters beyond it are neither searched nor shown."""
TAIL_CHARS_MAX: Final = 1_024
"""Characters without a space that are dropped before a cut: they may be a part of a secret that no format matches."""
HEAD_CHARS_MAX: Final = 4_096
"""Characters that are dropped after a cut: the name before a secret may be cut away."""
ITEM_CHARS: Final = 16
"""Characters that an item of a value counts besides its text."""
SHORT_CHARS_MAX: Final = 64
"""Limit for a text whose result is remembered."""
DEPTH_MAX: Final = 32
"""Deeper values are shown as one text."""
WITHOUT_LIMIT: Final = 2**63 - 1
NESTING_MAX: Final = 200
"""Deeper values of a payload that is masked whole are masked."""

_KEY_END = re.compile(r"\A(?:(?!-----BEGIN ).)*?(-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)", re.DOTALL)
"""The rest of a PEM key whose beginning was cut away."""


def mask(text: str) -> str:
    """Replace everything that looks like a secret by `***`. A text over CHARS_MAX is cut, with a note."""
    return text if not text else _start(text, CHARS_MAX)


def mask_end(text: str) -> str:
    """As `mask`, but keep the end of a text over CHARS_MAX."""
    if len(text) <= CHARS_MAX:
        return _search(text)
    kept = text[-CHARS_MAX:]
    key = _KEY_END.match(kept)
    shown = _search(kept)[HEAD_CHARS_MAX:] if key is None else _search(HIDDEN + kept[key.start(1) :])
    return f"[cut: the end of {len(text):,} characters]\n{shown}"


def mask_address(url: str) -> str:
    """Mask the password in the address of a log or a board, whatever characters it has."""
    scheme, colon, rest = url.partition(":")
    if scheme == "sqlite" or "@" not in rest:
        return mask(url)
    slashes = "//" if rest.startswith("//") else ""
    secret, _, host = rest[len(slashes) :].rpartition("@")
    user, named, _ = secret.partition(":")
    return f"{scheme}{colon}{slashes}{user if named else ''}{named}{HIDDEN}@{mask(host)}"


def mask_value(name: str, value: Any, chars_max: int = CHARS_MAX) -> Any:
    """Mask the texts in a field; the whole field where its name denotes a secret.

    Values that JSON does not know become text. After `chars_max` characters, the rest is omitted.
    """
    return _Value(chars_max).mask(name, value)


def mask_whole(name: str, value: Any) -> Any:
    """Mask the texts in a field as `mask_value` does, but cut none, however long: for payloads that are read again.

    The time is linear in the size of the value. What is deeper than NESTING_MAX is masked.
    """
    return _Value(WITHOUT_LIMIT, WITHOUT_LIMIT, NESTING_MAX).mask(name, value)


class _Value:
    """One value that is being masked. `left`: the characters that may still be shown."""

    def __init__(self, chars_max: int, text_chars_max: int = CHARS_MAX, depth_max: int = DEPTH_MAX) -> None:
        self.left = chars_max
        self._text_chars_max = text_chars_max
        self._depth_max = depth_max

    def mask(self, name: str, value: Any, depth: int = 0) -> Any:
        self.left -= ITEM_CHARS
        kind = value.__class__
        if kind is str:
            return self._text(name, value)
        if value is None or kind is bool:
            return value
        if isinstance(value, int | float):
            return HIDDEN if _is_secret_number(name, value) else value
        if (kind is dict or isinstance(value, Mapping)) and depth < self._depth_max:
            return self._mapping(name, value, depth + 1)
        if isinstance(value, list | tuple | Set) and depth < self._depth_max:
            return self._items(name, value, depth + 1)
        if self._depth_max == NESTING_MAX and depth >= NESTING_MAX:
            return HIDDEN
        return self._text(name, value if isinstance(value, str) else str(value))

    def _text(self, name: str, text: str) -> str:
        if text and _is_secret_name(name):
            return HIDDEN
        chars_max = max(0, self.left)
        self.left -= len(text)
        return _start(text, min(self._text_chars_max, chars_max))

    def _mapping(self, name: str, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        secret = _is_secret_name(name)
        for count, (key, inner) in enumerate(value.items()):
            if self.left <= 0:
                return {**found, "…": f"[cut: {len(value) - count:,} more]"}
            label = str(key)
            chars_max = max(0, self.left)
            self.left -= len(label)
            found[_start(label, chars_max)] = self.mask(name if secret else label, inner, depth)
        return found

    def _items(self, name: str, value: "list[Any] | tuple[Any, ...] | Set[Any]", depth: int) -> list[Any]:
        found: list[Any] = []
        before = ""
        for count, inner in enumerate(value):
            if self.left <= 0:
                return [*found, f"[cut: {len(value) - count:,} more]"]
            found.append(self.mask(before if _names_next(before, value) else name, inner, depth))
            before = inner if isinstance(inner, str) else ""
        return found


def _is_secret_number(name: str, value: float | None) -> bool:
    """Whether a number is a secret: counts of tokens and numbers below 100 are not."""
    number = value is not None and not isinstance(value, bool) and not -100 < value < 100
    return number and _is_secret_name(name) and not name.lower().endswith(("token", "tokens"))


def _names_next(text: str, items: Sized) -> bool:
    """Whether an item names a secret that the next item holds: an option of a command, or the first of a pair."""
    return (text.startswith("-") or len(items) == 2) and _is_secret_name(text)


def _is_secret_name(text: str) -> bool:
    return _is_short_secret_name(text) if len(text) <= SHORT_CHARS_MAX else SECRET_NAME.search(text) is not None


def _start(text: str, chars_max: int) -> str:
    if (length := len(text)) <= chars_max:
        return _search_short(text) if length <= SHORT_CHARS_MAX else _search_formats(text)
    kept = text[:chars_max]
    if kept and not kept[-1].isspace():
        kept = kept[: -len(kept[-TAIL_CHARS_MAX:].split()[-1])]
    return f"{_search(kept)}… [cut: {len(text) - len(kept):,} characters]"


def _search(text: str) -> str:
    return _search_short(text) if len(text) <= SHORT_CHARS_MAX else _search_formats(text)


def _search_formats(text: str) -> str:
    lowered = text.lower()
    for hints, formats in _FORMATS:
        for hint in hints:
            if hint in lowered:
                for pattern, shown in formats:
                    text = _compile(pattern).sub(shown, text)
                break
    return text


@lru_cache(maxsize=8_192)
def _search_short(text: str) -> str:
    """As `_search_formats`. Names of fields and short values come again and again."""
    lowered = text.lower()
    if _BEGINNINGS.isdisjoint(lowered) and _BEGINNINGS.isdisjoint(map(add, lowered, lowered[1:])):
        return text
    return _search_formats(text)


@lru_cache(maxsize=8_192)
def _is_short_secret_name(text: str) -> bool:
    return SECRET_NAME.search(text) is not None


@cache
def _compile(pattern: str) -> re.Pattern[str]:
    """Compile a pattern when its hint first appears: compiling all takes longer than most commands."""
    return re.compile(pattern)


_FORMATS: Final = tuple(
    (hints, tuple((row.pattern, row.shown) for row in rows)) for hints, rows in groupby(FORMATS, lambda row: row.hints)
)
_BEGINNINGS: Final = frozenset(hint[:2] for hints, _ in _FORMATS for hint in hints)
"""The first two characters of each hint; a text without any of these has no hint."""
