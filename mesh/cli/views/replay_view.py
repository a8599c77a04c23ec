"""The steps of a replay in output: event, changes of the run, effects with their reasons."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.text import MESSAGE_CHARS_MAX, clock, took, visible
from mesh.cli.views.run_view import STYLES
from mesh.core.protocol.event import BATCH, Event, parse_json, rfc3339
from mesh.core.replay.reasons import Consequence, reasons_of, skipped
from mesh.core.replay.run_changes import FieldChange, breaker_changes, run_changes
from mesh.core.replay.steps import Gap, Step
from mesh.core.run.circuit_breaker import NO_BREAKERS
from mesh.core.run.effects import PublishEvent, PublishTask, Schedule

Line = list[Piece]

KIND_STYLES: Final = {
    "requested": "cyan",
    "succeeded": "green",
    "failed": "red",
    "unreadable": "red",
    "cancelled": "magenta",
    "due": "yellow",
    "paused": "yellow",
    "resumed": "cyan",
    "redriven": "cyan",
}
MARKS: Final = {
    "task": "→",
    "left": "⇒",
    "timer": "○",
    "ended": "■",
    "dead letter": "✗",
    "refused": "✗",
    "breaker": "‖",
}
MARK_STYLES: Final = {"task": "cyan", "left": "green", "dead letter": "red", "refused": "yellow", "breaker": "yellow"}
QUIET: Final = frozenset({"note", "skipped", "adopted", "timer"})
FIELD_CHARS: Final = 12
NAME_CHARS_MAX: Final = 24
"""Longer names do not move the reasons of other effects to the right."""
INDENT: Final = "     "


def step_lines(step: Step, before_ms: int, *, payload: bool = False, breakers: Any = NO_BREAKERS) -> Iterator[Line]:
    """Yield the lines of one step. `before_ms`: time of the step before it. `breakers`: those before it."""
    yield _head(step, before_ms)
    if step.flaw is not None:
        yield [INDENT, ("✗ ", "red"), f"{step.flaw.code}: {visible(step.flaw.message, MESSAGE_CHARS_MAX)}"]
    fault = None if step.event is None else step.event.fault
    if fault is not None:
        yield [INDENT, ("fault".ljust(FIELD_CHARS), "dim"), (fault.code, "red"), f": {visible(fault.message, 200)}"]
    if payload and step.event is not None:
        yield from _payload(step.event)
    changes = [*run_changes(step.before, step.after), *breaker_changes(breakers, step.breakers)]
    yield from _change_lines(changes, step)
    reasons = [*skipped(step), *reasons_of(step)]
    width = max((len(reason.name) for reason in reasons), default=0)
    for reason in reasons:
        yield _reason(reason, min(width, NAME_CHARS_MAX))


def _head(step: Step, before_ms: int) -> Line:
    since = f"+{took(max(0, step.at_ms - before_ms))}"
    event = step.event
    attempt = f" attempt {event.attempt}" if event is not None and event.task_id and event.attempt > 1 else ""
    about = " ".join(part for part in (step.agent, _types(event)) if part)
    cause = f"  after {step.cause}" if step.cause is not None else ""
    return [
        (f"{step.number:>3}  ", "bold"),
        (step.kind.ljust(10), KIND_STYLES.get(step.kind, "")),
        (about, "bold"),
        (attempt, "yellow"),
        (f"  {clock(step.at_ms)} {since}{cause}", "dim"),
    ]


def _types(event: Event | None) -> str:
    if event is None or event.kind in ("due", "cancelled", "paused", "resumed"):
        return "" if event is None else event.subject if event.kind in ("cancelled", "paused") else ""
    if event.content_type == BATCH and event.kind == "succeeded":
        try:
            return ", ".join(part.type for part in event.parts()) or "nothing emitted"
        except ValueError:
            return "invalid batch"
    return event.type


def _payload(event: Event) -> Iterator[Line]:
    if not event.data:
        return
    try:
        text = orjson.dumps(orjson.loads(event.data), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        text = event.data.decode("utf-8", "backslashreplace")
    for line in text.splitlines():
        yield [f"{INDENT}  ", (line, "dim")]


def _reason(reason: Consequence, width: int) -> Line:
    style = STYLES.get(reason.name, "") if reason.what == "ended" else MARK_STYLES.get(reason.what, "")
    quiet = reason.what in QUIET
    text = visible(reason.text, MESSAGE_CHARS_MAX)
    return [
        (f"   {MARKS.get(reason.what, '·')} ", style or ("dim" if quiet else "")),
        (reason.what.ljust(FIELD_CHARS), "dim"),
        (reason.name.ljust(width), "dim" if quiet else style or "bold"),
        (f"  {text}", "dim" if quiet else ""),
    ]


def _change_lines(changes: Sequence[FieldChange], step: Step) -> Iterator[Line]:
    opened = [c for c in changes if c.field.startswith("open ")]
    if opened:
        yield _field("open", ", ".join(_open_change(change, step.at_ms) for change in opened))
    counters = [c for c in changes if c.field in _COUNTERS and (c.before or c.after)]
    if counters:
        yield _field("count", " · ".join(_counter(change) for change in counters))
    for change in changes:
        word, _, name = change.field.partition(" ")
        if word == "join":
            yield _field("join", f"{name} {_join(change)}")
        elif word == "visits":
            yield _field("visits", f"{name} {change.before or 0} → {change.after}")
        elif word == "breaker":
            yield _field("breaker", f"{name} {_plain(change.before)} → {_plain(change.after)}")
        elif change.field == "deadline_ms" and change.before is not None:
            yield _field("deadline", f"{clock(change.before)} → {clock(change.after)}")
        elif isinstance(change.after, list) or isinstance(change.before, list):
            yield from _list_change(change, step)
        elif change.field in ("paused", "generation"):
            yield _field(change.field, f"{change.before or 'no'} → {change.after or 'no'}")


_COUNTERS: Final = {
    "tasks": "tasks",
    "tokens": "tokens",
    "refused": "refused",
    "state_bytes": "bytes held",
    "usd_micros": "usd",
    "reserved_usd_micros": "usd reserved",
    "reserved_tokens": "tokens reserved",
}


def _field(name: str, text: str) -> Line:
    return [INDENT, (name.ljust(FIELD_CHARS), "dim"), visible(text, MESSAGE_CHARS_MAX)]


def _counter(change: FieldChange) -> str:
    money = change.field.endswith("usd_micros")
    was, now = (f"{(side or 0) / 1e6:.4f}" if money else f"{side or 0:,}" for side in (change.before, change.after))
    return f"{_COUNTERS[change.field]} {was} → {now}"


def _open_change(change: FieldChange, at_ms: int) -> str:
    name = change.field.removeprefix("open ")
    if change.after is None:
        return f"- {name}"
    waits = ""
    if change.after.get("waits"):
        due_ms = change.after.get("due_ms")
        waits = f" waits {took(due_ms - at_ms)}" if due_ms else " waits"
    if change.before is None:
        return f"+ {name}{waits}"
    return f"{name} attempt {change.after['attempt']}{waits}"


def _join(change: FieldChange) -> str:
    known = [] if change.before is None else change.before["has"]
    now = change.after or {"has": []}
    came = [f"+ {type}" for type in now["has"] if type not in known]
    state = "complete" if now.get("fired") else "`when` is false" if now.get("declined") else f"{len(now['has'])} there"
    return f"{' '.join(came)}  ({state})".strip()


def _list_change(change: FieldChange, step: Step) -> Iterator[Line]:
    was, now = change.before or [], change.after or []
    if change.field == "requests" and not was:
        return
    for text in now[len(was) :] if now[: len(was)] == was else now:
        yield _field(change.field, f"+ {text}")
    if len(now) < len(was):
        yield _field(change.field, f"{len(was)} → {len(now)}")


def _plain(value: Any) -> str:
    if value is None:
        return "closed"
    return f"open until {clock(value['until_ms'])}" if "until_ms" in value else f"{value['failures']} failures"


def gap_lines(output: Output, gaps: Sequence[Gap]) -> None:
    """Print what the recording lacks, and what operators did."""
    for gap in gaps:
        at = f"step {gap.step}" if gap.step else "before step 1"
        output.print("  ", (f"{gap.kind} ", "yellow"), (f"{at}: ", "dim"), visible(gap.text, MESSAGE_CHARS_MAX))


# ---------------------------------------------------------------------------------------------------------------- JSON


def step_json(step: Step, *, payload: bool = False, breakers: Any = NO_BREAKERS) -> dict[str, Any]:
    """A step as JSON-able values."""
    event = step.event
    changes = [*run_changes(step.before, step.after), *breaker_changes(breakers, step.breakers)]
    found: dict[str, Any] = {
        "step": step.number,
        "where": step.where,
        "at": rfc3339(step.at_ms),
        "kind": step.kind,
        "agent": step.agent,
        "type": "" if event is None else event.type,
        "id": "" if event is None else event.id,
        "task": "" if event is None else event.task_id,
        "attempt": 0 if event is None else event.attempt,
        "after": step.cause,
        "topology": None if step.topology is None else step.topology.digest,
        "fault": None if event is None or event.fault is None else event.fault._asdict(),
        "flaw": None if step.flaw is None else {"code": step.flaw.code, "message": step.flaw.message},
        "changes": [change._asdict() for change in changes],
        "effects": [_reason_json(reason, payload) for reason in reasons_of(step)],
        "skipped": [{"agent": reason.name, "why": reason.text} for reason in skipped(step)],
        "refusals": [refusal._asdict() for refusal in step.refusals],
    }
    return found | ({"data": _data(event)} if payload and event is not None else {})


def _reason_json(reason: Consequence, payload: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"what": reason.what, "name": reason.name, "rule": reason.rule, "why": reason.text}
    match reason.effect:
        case PublishTask():
            sent = reason.effect.event
            found |= {"task": sent.task_id, "attempt": sent.attempt, "depth": sent.depth, "path": list(sent.path)}
            found |= {"data": _data(sent)} if payload else {}
        case PublishEvent():
            found |= {"id": reason.effect.event.id, "topic": reason.effect.topic}
        case Schedule():
            found |= {"due": rfc3339(reason.effect.due_ms)}
    return found


def _data(event: Event) -> Any:
    value = parse_json(event.data)
    return event.data.decode("utf-8", "backslashreplace") if value is None and event.data else value
