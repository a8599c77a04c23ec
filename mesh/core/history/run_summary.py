"""Summarise a run in one line, from its outcome, or from its history if it has none yet."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.history.outcome_body import time_ms
from mesh.core.history.timeline import History
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import Record
from mesh.core.publishing.effect_records import OUTCOME_TYPE

OPEN: Final = "open"
"""State of a run that has not ended."""


class Summary(NamedTuple):
    """One run in one line. `state` is `open` or the ending; times are log time in ms since the epoch."""

    run_id: str
    type: str
    subject: str
    state: str
    opened_ms: int
    ended_ms: int | None
    tasks: int
    refusals: tuple[str, ...]
    """Reason codes."""
    failures: tuple[str, ...]
    """Agents."""
    paused: bool = False
    """Whether it is open and waits to be resumed."""
    starved: tuple[str, ...] = ()
    """Joins."""
    unrouted: tuple[str, ...] = ()
    """Types of unrouted events."""
    overspent: tuple[str, ...] = ()
    """Budgets, `usd` or `tokens`."""

    @property
    def took_ms(self) -> int | None:
        """Duration from the request to the end; None while it is open."""
        return None if self.ended_ms is None else self.ended_ms - self.opened_ms


def outcome_of(record: Record) -> tuple[Event, dict[str, Any]] | None:
    """Return the outcome in a record of mesh.outcomes with its body; None for other records."""
    event = read_event(record)
    if isinstance(event, Unreadable) or not event.type.startswith(OUTCOME_TYPE):
        return None
    try:
        body = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict) or not all(isinstance(body.get(n), str) for n in ("ending", "opened", "ended")):
        return None
    return event, body


def summary_of_outcome(event: Event, body: dict[str, Any]) -> Summary:
    """Summarise a run that ended, from its outcome alone."""
    request = body.get("request")
    return Summary(
        event.run_id,
        str(request.get("type", "")) if isinstance(request, dict) else "",
        event.subject,
        body["ending"],
        time_ms(body["opened"]),
        time_ms(body["ended"]),
        int(body.get("tasks", 0)),
        tuple(str(r.get("code", "")) for r in body.get("refusals", ())),
        tuple(str(f.get("agent", "")) for f in body.get("failures", ())),
        starved=_names(body.get("starved", ())),
        unrouted=tuple(dict.fromkeys(str(fact.get("type", "")) for fact in body.get("unrouted", ()))),
        overspent=_names(body.get("overspent", ())),
    )


def summary_of(history: History) -> Summary:
    """Summarise a run from its history."""
    return Summary(
        history.run_id,
        history.type,
        history.subject,
        history.state,
        history.opened_ms,
        history.ended_ms,
        len(history.tasks),
        tuple(refusal.code for refusal in history.refusals),
        tuple(failure.agent for failure in history.failures),
        history.run is not None and not history.ending and bool(history.run.trouble.paused),
        _names(history.starved),
        tuple(dict.fromkeys(fact.type for fact in history.unrouted)),
        _names(history.overspent),
    )


def _names(sentences: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct subjects of sentences: the join that starved, the budget that was overspent."""
    return tuple(dict.fromkeys(str(text).partition(":")[0] for text in sentences))
