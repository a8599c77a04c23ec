"""Read values with units, as written in files: `2s`, `64KB`, `0.50`. Each reader takes a text and returns one number.

All readers raise InvalidInput (code `bad_value`), which names the expected value and how to write it.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from mesh.core.errors import InvalidInput
from mesh.core.expression.field_path import excerpt

_NUMBER = r"(?P<number>[0-9][0-9_]*(?:\.[0-9]+)?)"
_QUANTITY = re.compile(rf"{_NUMBER}\s*(?P<unit>[A-Za-zµ$€]*)", re.ASCII)
_WHOLE = re.compile(r"-?[0-9][0-9_]*", re.ASCII)
_DECIMAL = re.compile(r"-?[0-9][0-9_]*(?:\.[0-9]+)?", re.ASCII)

_DURATIONS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION_WORDS: Final = {
    "s": ("sec", "secs", "second", "seconds"),
    "ms": ("msec", "millis", "millisecond", "milliseconds"),
    "m": ("min", "mins", "minute", "minutes"),
    "h": ("hr", "hrs", "hour", "hours"),
    "d": ("day", "days"),
}
_SIZES: Final = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE_WORDS: Final = {"B": ("byte", "bytes", "b"), "KB": ("k", "kb"), "MB": ("m", "mb"), "GB": ("g", "gb")}

DURATION_MS_MAX: Final = 366 * 86_400_000
RETENTION_MS_MIN: Final = 3_600_000
KEPT_FOREVER: Final = -1
"""Kafka's `retention.ms` of a topic whose records are never removed by time."""
SIZE_BYTES_MAX: Final = 1 << 30
USD_MAX: Final = 1_000_000_000
DIGITS_MAX: Final = 18


def duration_ms(text: str) -> int:
    """Read `500ms`, `2s`, `1.5m`, `1h`, `1d` as whole milliseconds."""
    return _quantity(
        text, _DURATIONS_MS, _DURATION_WORDS, "a duration with its unit (ms, s, m, h, d)", DURATION_MS_MAX, "s"
    )


def retention_ms(text: str) -> int:
    """Read `30d` as milliseconds, `forever` as KEPT_FOREVER. At least an hour: checkpoints are more frequent."""
    if text == "forever":
        return KEPT_FOREVER
    found = duration_ms(text)
    if found < RETENTION_MS_MIN:
        raise _invalid(text, "a retention of at least 1h, or forever", "Write 1h or more")
    return found


def size_bytes(text: str) -> int:
    """Read `64KB`, `1MB`, `512B` as bytes. KB, MB and GB are powers of 1024."""
    return _quantity(text, _SIZES, _SIZE_WORDS, "a size with its unit (B, KB, MB, GB)", SIZE_BYTES_MAX, "KB")


def usd_micros(text: str) -> int:
    """Read US dollars as whole millionths: `0.50` is 500000."""
    expected = "US dollars, like 0.50"
    if not _DECIMAL.fullmatch(text) or len(text) > DIGITS_MAX:
        match = _QUANTITY.fullmatch(text.strip("$€ "))
        remedy = f"Write {match['number']}" if match else "Write a plain decimal number"
        raise _invalid(text, expected, f"{remedy}, without sign, word or exponent")
    micros = Decimal(text) * 1_000_000
    if micros != int(micros):
        raise _invalid(text, expected, "Write at most six decimals: a millionth of a dollar is the smallest amount")
    if not 0 <= micros <= USD_MAX * 1_000_000:
        raise _invalid(text, f"US dollars from 0 to {USD_MAX}", "Write an amount in this range")
    return int(micros)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Make a reader of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        expected = f"a whole number from {low} to {high}"
        if not _WHOLE.fullmatch(text) or len(text) > DIGITS_MAX:
            match = _QUANTITY.fullmatch(text)
            plain = match and match["unit"] and "." not in match["number"]
            raise _invalid(text, expected, f"Write {match['number']}" if match and plain else f"Write {low} or more")
        return int(_in_range(text, expected, Decimal(text), low, high))

    return read


def decimal(low: float, high: float) -> Callable[[str], float]:
    """Make a reader of decimal numbers from `low` to `high`."""

    def read(text: str) -> float:
        expected = f"a number from {low} to {high}"
        if not _DECIMAL.fullmatch(text) or len(text) > DIGITS_MAX:
            raise _invalid(text, expected, "Write a plain decimal number, like 0.5")
        return float(_in_range(text, expected, Decimal(text), low, high))

    return read


def flag(text: str) -> bool:
    """Read `true` or `false`."""
    if text not in ("true", "false"):
        raise _invalid(text, "true or false", "Write true or false")
    return text == "true"


def _quantity(
    text: str, units: dict[str, int], words: dict[str, tuple[str, ...]], expected: str, high: int, usual: str
) -> int:
    match = _QUANTITY.fullmatch(text)
    if match is None or len(text) > DIGITS_MAX:
        raise _invalid(text, expected, f"Write a number and its unit, like 2{usual}")
    number, unit = match["number"], match["unit"]
    if not unit:
        raise _invalid(text, expected, f"A number needs a unit: write {number}{usual}", "invalid unit")
    if unit not in units:
        meant = next((name for name, others in words.items() if unit.lower() in (name.lower(), *others)), usual)
        raise _invalid(text, expected, f"Write {number}{meant}", "invalid unit")
    amount = Decimal(number) * units[unit]
    if amount != int(amount):
        raise _invalid(text, expected, f"Write a whole number of {min(units, key=lambda name: units[name])}")
    if not amount <= high:
        raise _invalid(text, expected, f"Write at most {high // units[unit]}{unit}", "value too large")
    return int(amount)


def _in_range(text: str, expected: str, value: Decimal, low: float, high: float) -> Decimal:
    if not low <= value <= high:
        raise _invalid(text, expected, f"Write {low} or more" if value < low else f"Write {high} or less")
    return value


def _invalid(text: str, expected: str, remedy: str, what: str = "invalid value") -> InvalidInput:
    return InvalidInput(what, code="bad_value", expected=expected, got=excerpt(text), remedy=remedy)
