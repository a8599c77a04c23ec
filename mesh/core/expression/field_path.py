"""Paths into payloads: `order.id`, `items[0].sku`, `order."odd name"`. Used by `key:`, `id:` and conditions."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mesh.core.errors import InvalidInput

TEXT_CHARS_MAX = 1_000
SEGMENTS_MAX = 20

Scalar = str | int | float | bool

STRING = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'"
"""Regular expression of a quoted string."""
STEP = rf"\.(?:[A-Za-z0-9_-]+|{STRING})|\[[0-9]{{1,9}}\]"
"""Regular expression of one step after the first name of a path."""
WORDS = frozenset({"and", "or", "not", "in", "true", "false", "null"})
"""Words of the expression language. No path in a condition begins with one of them unquoted."""

_PATH = re.compile(rf"(?:[A-Za-z0-9_-]+|{STRING})(?:{STEP})*", re.DOTALL)
_SEGMENT = re.compile(rf"\.?(?:(?P<quoted>{STRING})|(?P<name>[A-Za-z0-9_-]+))|\[(?P<index>[0-9]+)\]", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN_FIRST = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class ConditionInvalid(InvalidInput):
    """A condition or a path was refused. `column` counts characters of its text from 1."""

    def __init__(self, what: str, *, column: int, expected: str = "", got: str = "", remedy: str = "") -> None:
        super().__init__(
            what, code="bad_condition", where=f"column {column}", expected=expected, got=got, remedy=remedy
        )
        self.column = column


@dataclass(frozen=True, slots=True)
class Path:
    """A path into a payload: field names and array indexes. `type`: the event type that it begins with, once bound."""

    segments: tuple[str | int, ...]
    type: str | None = None

    def __str__(self) -> str:
        text = ""
        for segment in self._whole():
            if isinstance(segment, int):
                text += f"[{segment}]"
            elif text:
                text += f".{segment if _PLAIN.fullmatch(segment) else quote(segment)}"
            else:
                plain = _PLAIN_FIRST.fullmatch(segment) and segment not in WORDS
                text = segment if plain else quote(segment)
        return text

    def _whole(self) -> tuple[str | int, ...]:
        return self.segments if self.type is None else (*self.type.split("."), *self.segments)

    def bind(self, types: Iterable[str]) -> "Path":
        """Return the path with the longest of `types` that it begins with as its type."""
        known = frozenset(types)
        whole = self._whole()
        found, prefix = Path(whole), ""
        for count, segment in enumerate(whole, start=1):
            if isinstance(segment, int):
                break
            prefix = f"{prefix}.{segment}" if count > 1 else segment
            if prefix in known:
                found = Path(whole[count:], prefix)
        return found

    def lookup(self, payload: Any) -> Any:
        """Return the value at the path in one parsed payload, None if it is missing. Ignores the type."""
        for segment in self.segments:
            if isinstance(segment, str):
                if payload.__class__ is not dict:
                    return None
                payload = payload.get(segment)
            elif payload.__class__ is list and segment < len(payload):
                payload = payload[segment]
            else:
                return None
        return payload

    def exists_in(self, payload: Any) -> bool:
        """Whether the payload has the field, even if it is null. Ignores the type."""
        if not self.segments:
            return True
        found, last = Path(self.segments[:-1]).lookup(payload), self.segments[-1]
        if isinstance(last, int):
            return found.__class__ is list and last < len(found)
        return found.__class__ is dict and last in found

    def value(self, payload: Any) -> Scalar | None:
        """Return the string, number or boolean at the path; None for any other value or none."""
        found = self.lookup(payload)
        return found if isinstance(found, str | int | float) else None

    def find(self, payloads: Mapping[str, Any]) -> Any:
        """Return the value in the payload of the path's type; without a type, in the only payload."""
        if self.type is not None:
            return self.lookup(payloads.get(self.type))
        if len(payloads) != 1:
            return None
        return self.lookup(next(iter(payloads.values())))


def parse_path(text: str) -> Path:
    """Read a path as in `key: order.id`. Raises ConditionInvalid."""
    check_text(text, "a path")
    match = _PATH.match(text)
    if match is None or match.end() != len(text):
        raise ConditionInvalid(
            f"{excerpt(text)} is not the path of a field",
            column=(match.end() if match else 0) + 1,
            remedy='Write it like `order.id`, `items[0].sku` or `order."odd name"`',
        )
    return split_path(text, 1)


def split_path(text: str, column: int) -> Path:
    """Split a text that has the form of a path. `column`: its position, for errors."""
    segments: list[str | int] = []
    for match in _SEGMENT.finditer(text):
        if match["index"] is not None:
            segments.append(int(match["index"]))
        elif match["name"] is not None:
            segments.append(match["name"])
        else:
            segments.append(unquote(match["quoted"], column + match.start("quoted")))
    if len(segments) > SEGMENTS_MAX:
        raise ConditionInvalid(
            f"a path of more than {SEGMENTS_MAX} steps",
            column=column,
            got=str(len(segments)),
            remedy="Let the agent before emit the value higher up",
        )
    return Path(tuple(segments))


def check_text(text: str, what: str) -> None:
    """Refuse a text that is empty, too long, or cannot be written as UTF-8."""
    if not text.strip():
        raise ConditionInvalid(f"{what} is empty", column=1, remedy="Write one, or remove the key")
    if len(text) > TEXT_CHARS_MAX:
        raise ConditionInvalid(
            f"{what} is too long",
            column=TEXT_CHARS_MAX + 1,
            expected=f"at most {TEXT_CHARS_MAX} characters",
            got=str(len(text)),
            remedy="Let the agent before emit a field that says it",
        )
    if match := _SURROGATE.search(text):
        raise ConditionInvalid(f"unexpected {excerpt(match[0])}", column=match.start() + 1, remedy="Remove it")


def quote(text: str) -> str:
    """Write a string as a literal of the language."""
    for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return f'"{text}"'


def unquote(text: str, column: int) -> str:
    """Read a string literal of the language."""

    def plain(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPED:
            raise ConditionInvalid(
                f"unknown escape {excerpt(match[0])}",
                column=column + 1 + match.start(),
                expected="\\\\ \\\" \\' \\n \\t or \\r",
                remedy="Write the character itself, or two backslashes for one",
            )
        return _ESCAPED[match[1]]

    return _ESCAPE.sub(plain, text[1:-1])


def excerpt(text: str, chars_max: int = 40) -> str:
    """Quote a foreign text for an error message, without control characters, cut to size."""
    return json.dumps(
        text if len(text) <= chars_max else text[: chars_max - 1] + "…", ensure_ascii=not text.isprintable()
    )
