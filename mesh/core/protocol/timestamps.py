"""RFC 3339 times → milliseconds since the epoch, in full: fractions of any length, offsets, leap seconds."""

import re
from datetime import date, datetime
from functools import lru_cache
from typing import Final

_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ]([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(?:\.(\d+))?"
    r"(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_CYCLE_DAYS: Final = 146_097
"""Days of 400 years, after which the calendar repeats. Python's begins with the year 1, that of RFC 3339 with 0."""
_DAY_S: Final = 86_400
_USUAL: Final = (20, 24)
"""Lengths of times without a fraction, and with one of three digits."""
_SIGNS: Final = ("-", "-", "T", ":", ":", "Z")


def parse_time(text: str) -> int:
    """Return milliseconds since the epoch. Raises ValueError. A leap second counts as the next one, as in POSIX."""
    return _short(text) if len(text) <= _USUAL[-1] else _parse(text)


@lru_cache(maxsize=4_096)  # runs that open in one millisecond expire in one
def _short(text: str) -> int:
    if len(text) in _USUAL and (text[4], text[7], text[10], text[13], text[16], text[-1]) == _SIGNS:
        try:
            return _usual(text)
        except ValueError:
            pass  # a leap second, or an invalid time
    return _parse(text)


def _usual(text: str) -> int:
    """Read `2026-11-20T12:00:00.123Z`, as the mesh writes it, or the same without fraction: Python reads it faster."""
    if text[19] not in ".Z" or text[11:13] == "24":
        raise ValueError(text)
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def _parse(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise _no_time(text)
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, hours, minutes = match.groups()[6:]
    try:
        ordinal = date(year or 400, month, day).toordinal() - (0 if year else _CYCLE_DAYS)
    except ValueError:
        raise _no_time(text) from None
    offset_s = (int(hours) * 3600 + int(minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    seconds = (ordinal - _EPOCH_DAY) * _DAY_S + hour * 3600 + minute * 60 + second - offset_s
    if second == 60 and not _begins_month(seconds):
        raise ValueError(
            f"{text[:64]!r} has a second 60 where no leap second can be; there is one at the end of a month"
        )
    ms = (int(fraction[:4].ljust(4, "0")) + 5) // 10 if fraction else 0
    return seconds * 1000 + ms


def _begins_month(seconds: int) -> bool:
    """Whether a month begins at this second, so that the second before may be a leap second."""
    days, rest = divmod(seconds, _DAY_S)
    return not rest and date.fromordinal((days + _EPOCH_DAY - 1) % _CYCLE_DAYS + 1).day == 1


def _no_time(text: str) -> ValueError:
    return ValueError(f"{text[:64]!r} is no RFC 3339 time such as 2026-11-20T12:00:00Z")
