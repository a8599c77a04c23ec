"""Formats text, numbers and times for people. Text that came with an event passes `visible` before it is shown."""

import re
import time
from datetime import datetime
from math import ceil
from typing import Final

import orjson

from mesh.core.errors import InvalidInput
from mesh.core.topology.units import duration_ms

LINE_CHARS_MAX: Final = 450
MESSAGE_CHARS_MAX: Final = 400
"""The longest message of an agent or an error in a line; `--json` has all of it."""
_RATE: Final = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)(?:/(s|m|h))?", re.ASCII)
_PER: Final = {None: 1, "s": 1, "m": 60, "h": 3_600}
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
"""Characters that could control a terminal or reorder its text: C0, C1, bidirectional controls, invisible tags."""


def visible(text: str, chars_max: int = LINE_CHARS_MAX) -> str:
    """Format text as one line: control characters as `\\x1b`, line ends as `\\n`, long text cut."""
    if len(text) > chars_max:
        return f"{_UNSAFE.sub(_escape, text[: max(chars_max - 1, 0)])}… ({len(text):,} characters)"
    return _UNSAFE.sub(_escape, text)


def escaped_json(document: str) -> str:
    """Escape the characters in a JSON document that a terminal would obey. The document means the same."""
    return _UNSAFE.sub(lambda found: "".join(f"\\u{unit:04x}" for unit in _utf16(found[0])), document)


def pretty_json(value: bytes | None) -> str:
    """Format a payload: JSON on indented lines, other bytes as text with escapes."""
    if value is None:
        return "(no value)"
    try:
        return orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2).decode()
    except (orjson.JSONDecodeError, TypeError):
        return value.decode("utf-8", "backslashreplace")


def took(ms: float) -> str:
    """Format a duration: `3 ms`, `1.24 s`, `2 m 05 s`, `3 h 12 m`."""
    if ms < 1_000:
        return f"{ms:.0f} ms"
    seconds = ms / 1_000
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} m {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} m"


def span(ms: int) -> str:
    """Format a limit in its largest whole unit: `200 ms`, `10 s`, `5 m`, `30 d`."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
        if ms >= size and ms % size == 0:
            return f"{ms // size} {unit}"
    return f"{ms} ms"


def ago(at_ms: int, now_ms: int | None = None) -> str:
    """Format the age of a moment: `9 s ago`, `3 m ago`, `2 d ago`."""
    seconds = max(0, (time.time_ns() // 1_000_000 if now_ms is None else now_ms) - at_ms) // 1_000
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def clock(at_ms: int) -> str:
    """Format the local time of day with milliseconds: `12:01:07.114`."""
    moment = datetime.fromtimestamp(at_ms / 1_000)
    return f"{moment:%H:%M:%S}.{at_ms % 1_000:03d}"


def moment(at_ms: int) -> str:
    """Format the local date and time: `2026-11-20 12:01:07`."""
    return f"{datetime.fromtimestamp(at_ms / 1_000):%Y-%m-%d %H:%M:%S}"


def counted(number: int, noun: str) -> str:
    """Format a number with its noun: `1 run`, `1,240 runs`."""
    return f"{number:,} {noun if number == 1 else noun + 's'}"


def percentile(sorted_values: list[float], share: float) -> float:
    """The value below which `share` of the values lie (nearest rank); 0 for an empty list."""
    if not sorted_values:
        return 0.0
    return sorted_values[max(0, ceil(share * len(sorted_values) - 1e-9) - 1)]


def seconds(option: str, text: str) -> float:
    """Read a duration given as an option, in seconds. Raises InvalidInput that names the option."""
    try:
        return duration_ms(text) / 1_000
    except InvalidInput as error:
        raise relocated(error, option) from error


def rate(option: str, text: str, noun: str) -> float:
    """Read a number a second, minute or hour given as an option: `10`, `10/s`, `30/m`. Returns it for a second.

    Raises InvalidInput that names the option.
    """
    found = _RATE.fullmatch(text.strip())
    if found is None or float(found[1]) <= 0:
        raise InvalidInput(
            "invalid rate", code="bad_value", where=option, expected=f"{noun} a second such as 10/s", got=text[:64]
        )
    return float(found[1]) / _PER[found[2]]


def relocated(error: InvalidInput, where: str, code: str = "") -> InvalidInput:
    """The same error at another place, such as an option."""
    return InvalidInput(
        error.what,
        code=code or error.code,
        where=where,
        expected=error.expected,
        got=error.got,
        remedy=error.remedy,
    )


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    number = ord(character)
    return named or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def _utf16(character: str) -> list[int]:
    raw = character.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[n : n + 2], "big") for n in range(0, len(raw), 2)]
