"""Records of topics in output: one line each, the payload below it if wanted, or all bytes as they are."""

from datetime import datetime
from typing import Any, Final

from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.text import clock, pretty_json, visible
from mesh.cli.views.run_view import ID_CHARS, id_of
from mesh.core.protocol.codec import Unreadable, plain_headers
from mesh.core.protocol.event import (
    CANCELLED,
    DUE,
    FAILED,
    FOREIGN,
    OUTCOME,
    PAUSED,
    REDRIVEN,
    SUCCEEDED,
    Event,
    rfc3339,
)
from mesh.core.protocol.record import Record
from mesh.core.protocol.record_json import bytes_json
from mesh.core.publishing.effect_records import OUTCOME_TYPE

_KINDS: Final = {FAILED: "red", SUCCEEDED: "green", OUTCOME: "cyan", DUE: "dim", CANCELLED: "magenta", PAUSED: "yellow"}
_KIND_STYLES: Final = {**_KINDS, REDRIVEN: "cyan"}
KIND_CHARS: Final = 9
LINE_CHARS: Final = 200
"""The longest line in a pipe; on a terminal a line ends at its edge."""
SAID_CHARS_MIN: Final = 10
"""Smallest width of the subject of an event, even if the line is then folded."""
TOPIC_CHARS_MIN: Final = 6
"""Smallest width of the name of a topic, which is cut where the rest of the line needs the room."""
RUN_CHARS: Final = len("  run ") + ID_CHARS
REMARK_CHARS_MIN: Final = 6
"""Smallest width of a remark; with less room it is left out."""


def record_line(output: Output, record: Record, event: Event | Unreadable, *, topic: str) -> None:
    """Print one line: place, time, kind, what, run, and as much of the rest as there is room for.

    `topic`: its name as it is to be shown; "" leaves it out.
    """
    width = LINE_CHARS if output.width is None else output.width
    head = f"{record.partition}:{record.offset}  {_time(record.timestamp)}  "
    if topic:
        needed = 1 + len(head) + KIND_CHARS + 2 + SAID_CHARS_MIN + RUN_CHARS
        head = f"{_cut(topic, max(width - needed, TOPIC_CHARS_MIN))} {head}"
    pieces: list[Piece] = [(head, "dim")]
    room = width - len(head)
    if isinstance(event, Unreadable):
        output.print(*pieces, _cut(_key_and_value(record), room))
        return
    run = "" if event.run_id in ("", "*") else f"  run {id_of(event.run_id)}"
    pieces.append((event.kind.ljust(KIND_CHARS), _KIND_STYLES.get(event.kind, "")))
    said = _cut(_said(event), max(room - max(len(event.kind), KIND_CHARS) - 2 - len(run), SAID_CHARS_MIN))
    rest = room - max(len(event.kind), KIND_CHARS) - 2 - _cells(said) - len(run) - 2
    remark = _remark(event) if rest >= REMARK_CHARS_MIN else ""
    remark = f"  {_cut(remark, rest)}" if remark else ""
    output.print(*pieces, f"  {said}", (run, "dim"), remark)


def payload_lines(output: Output, record: Record, event: Event | Unreadable, *, headers: bool) -> None:
    """Print the payload below a record, indented, and all headers if wanted."""
    if headers:
        for name, value in plain_headers(record.headers):
            output.print((f"    {name}  ", "dim"), _plain(value))
    data = record.value if isinstance(event, Unreadable) else event.data
    if isinstance(event, Event) and event.kind == FOREIGN:
        output.print(("    id  ", "dim"), visible(event.id), ("  source  ", "dim"), visible(event.source))
    if isinstance(event, Unreadable):
        output.print((f"    no event: {event.code}: {event.message}", "dim"))
    output.document(pretty_json(data), indent="    ")


def raw_lines(output: Output, record: Record) -> None:
    """Print key, headers and value of a record as the log has them, escaped for the terminal."""
    place = f"{record.topic}:{record.partition}:{record.offset}"
    output.print((place, "bold"), (f"  {rfc3339(record.timestamp)}", "dim"))
    output.print(("  key  ", "dim"), "(none)" if record.key is None else _plain(record.key))
    for name, value in record.headers:
        output.print((f"  {name}  ", "dim"), _plain(value))
    output.print(("  value  ", "dim"), f"{len(record.value or b''):,} bytes")
    output.document("(none)" if record.value is None else _plain(record.value), indent="    ")


def raw_json(record: Record) -> dict[str, Any]:
    """A record as JSON-able values with the names of `kcat -J`."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "ts": record.timestamp,
        **bytes_json("key", record.key),
        **bytes_json("payload", record.value),
        "headers": [{"name": name, **bytes_json("value", value)} for name, value in record.headers],
    }


def _said(event: Event) -> str:
    """Return the subject of the event: the agent, if there is one, and the type."""
    if event.kind == SUCCEEDED:
        try:
            emitted = ", ".join(part.type for part in event.parts())
        except ValueError:
            emitted = event.type
        return f"{event.agent}: {emitted or 'nothing'}"
    if event.kind == OUTCOME:
        return event.type.removeprefix(OUTCOME_TYPE)
    if event.agent:
        return f"{event.agent}: {event.type}" if event.kind != FAILED else event.agent
    return event.type


def _remark(event: Event) -> str:
    if event.fault is not None:
        return f"{event.fault.code}: {event.fault.message}"
    attempt = f"attempt {event.attempt}" if event.attempt > 1 else ""
    sent = (event.id, event.source) if event.kind == FOREIGN else ()
    return ", ".join(dict.fromkeys(part for part in (event.subject, *sent, attempt) if part))


def _key_and_value(record: Record) -> str:
    key = "" if record.key is None else f"{_plain(record.key)}  "
    return key + ("(no value)" if record.value is None else _plain(record.value))


def _time(at_ms: int) -> str:
    """The time of day; on another day than today the date and the time in seconds."""
    moment = datetime.fromtimestamp(at_ms / 1_000)
    return clock(at_ms) if moment.date() == datetime.now().date() else f"{moment:%m-%d %H:%M:%S}"


def _cut(text: str, room: int) -> str:
    """Cut a text at its width in cells: a wide character takes two."""
    from rich.cells import set_cell_size

    line = visible(text[:LINE_CHARS])
    return line if _cells(line) <= room else f"{set_cell_size(line, room - 1)}…"


def _plain(value: bytes | None) -> str:
    return "(none)" if value is None else value.decode("utf-8", "backslashreplace")


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
