"""The options by which commands select: times, offsets, globs and conditions. Each form is read here alone.

A time is an age (`10m`, `24h`), a date or time in ISO 8601 (without a zone in that of this machine), or `@` and
milliseconds since the epoch. A place is `PARTITION:OFFSET`, as in `topic:2:120`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from mesh.cli.framework.text import relocated
from mesh.core.errors import InvalidInput
from mesh.core.topology.units import duration_ms

if TYPE_CHECKING:
    from mesh.core.selection.where import Where
    from mesh.core.topology.model import Topology

TIME_FORMS: Final = "an age such as 10m or 24h, a time such as 2026-11-20T12:00:00Z, or @ and milliseconds"
_DATE = re.compile(r"[0-9]{4}-")
_STAMP = re.compile(r"@[0-9]{1,15}", re.ASCII)
_PLACE = re.compile(r"([0-9]{1,9}):([0-9]{1,18})", re.ASCII)
OFFSET_MAX: Final = 2**40 - 1
"""The largest offset that every log takes."""

SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="from this time on: 10m, 24h, 2026-11-20T12:00Z, @MS")
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="before this time, in the same form")]
FromOption = Annotated[
    list[str] | None,
    typer.Option("--from", metavar="P:OFFSET", help="from this offset of partition P on: 2:120; may be repeated"),
]
ToOption = Annotated[
    list[str] | None, typer.Option("--to", metavar="P:OFFSET", help="before this offset of partition P")
]
WhereOption = Annotated[
    str | None,
    typer.Option("--where", metavar="EXPRESSION", help="condition as in `when:`, on payload and attributes"),
]


class TimeForm(NamedTuple):
    """A time as it was given: an age, or milliseconds since the epoch."""

    age_ms: int | None = None
    at_ms: int = 0

    def on(self, now_ms: int) -> int:
        """The time in milliseconds since the epoch, for this present."""
        return self.at_ms if self.age_ms is None else now_ms - self.age_ms


class TimeSpan(NamedTuple):
    """The times of `--since` and `--until`; None: not given."""

    since: TimeForm | None = None
    until: TimeForm | None = None

    def on(self, now_ms: int) -> tuple[int | None, int | None]:
        """Both in milliseconds since the epoch. Raises InvalidInput if nothing can lie between them."""
        since_ms, until_ms = (None if form is None else form.on(now_ms) for form in self)
        if since_ms is not None and until_ms is not None and since_ms >= until_ms:
            raise InvalidInput(
                "the time span is empty: --until is not after --since",
                code="bad_value",
                where="--until",
                expected="a later time than that of --since",
                remedy="Give both as times, or --since the larger age",
            )
        return since_ms, until_ms


def time_form(option: str, text: str) -> TimeForm:
    """Read a time. Raises InvalidInput that names the option and the forms."""
    if _STAMP.fullmatch(text):
        return TimeForm(at_ms=int(text[1:]))
    if _DATE.match(text):
        return TimeForm(at_ms=_date_ms(option, text))
    try:
        return TimeForm(duration_ms(text))
    except InvalidInput as error:
        remedy = error.remedy if error.code == "bad_value" and text[:1].isdigit() else ""
        raise _no_time(option, text, remedy) from error


def time_span(since: str | None, until: str | None) -> TimeSpan:
    """Read `--since` and `--until`."""
    return TimeSpan(
        None if since is None else time_form("--since", since), None if until is None else time_form("--until", until)
    )


def _date_ms(option: str, text: str) -> int:
    from mesh.core.protocol.timestamps import parse_time

    try:
        return parse_time(text)
    except ValueError:
        pass  # a date alone, a time without seconds or without a zone
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1_000)
    except (ValueError, OverflowError) as error:
        raise _no_time(option, text, "") from error


def _no_time(option: str, text: str, remedy: str) -> InvalidInput:
    return InvalidInput(
        "this is not a time", code="bad_value", where=option, expected=TIME_FORMS, got=f"{text[:64]!r}", remedy=remedy
    )


def places(option: str, texts: Iterable[str] | None) -> dict[int, int]:
    """Read places as partition → offset. Raises InvalidInput that names the option."""
    found: dict[int, int] = {}
    for text in texts or ():
        match = _PLACE.fullmatch(text)
        if match is None or int(match[2]) > OFFSET_MAX or int(match[1]) in found:
            twice = match is not None and int(match[1]) in found
            raise InvalidInput(
                "this partition was given before" if twice else "this is not a place in a topic",
                code="bad_value",
                where=option,
                expected=f"PARTITION:OFFSET, such as 2:120, the offset at most {OFFSET_MAX}",
                got=f"{text[:64]!r}",
                remedy="Give one offset for each partition" if twice else "",
            )
        found[int(match[1])] = int(match[2])
    return found


def where(text: str | None, topology: "Topology", option: str = "--where") -> "Where | None":
    """Read a condition. Raises ConditionInvalid with the column."""
    if text is None:
        return None
    from mesh.core.expression.field_path import ConditionInvalid
    from mesh.core.selection.where import Where

    try:
        return Where(text, {*topology.rows, *topology.ingress, *topology.egress})
    except ConditionInvalid as error:
        raise relocated(error, f"{option}, {error.where}") from error


def glob(text: str | None) -> Callable[[str], bool] | None:
    """Read a glob: `*` is any sequence of characters, `?` is one."""
    from mesh.core.text_glob import glob_test

    return None if text is None else glob_test(text)


def topic_names(given: Sequence[str], topology: "Topology", known: Iterable[str]) -> list[str]:
    """Return topics of the log by their names, or by those of the mesh without its prefix: `inbox`, `tasks.pricing`.

    Raises NotFound with a suggestion.
    """
    from mesh.core.errors import NotFound
    from mesh.core.suggest import did_you_mean

    there = set(known)
    names = []
    for name in dict.fromkeys(given):
        full = next((one for one in (name, f"{topology.prefix}.{name}") if one in there), None)
        if full is None:
            short = {one.removeprefix(f"{topology.prefix}."): one for one in there}
            remedy = did_you_mean(name, {*there, *short}, "`mesh topics list` shows those of this mesh")
            raise NotFound(f"the log has no topic {name[:249]!r}", where="TOPIC", remedy=remedy)
        names.append(full)
    return list(dict.fromkeys(names))
