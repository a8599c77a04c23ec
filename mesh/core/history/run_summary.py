"""Summarise a run in one line, from its outcome, or from its history if it has none yet."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.history.outcome_body import time_ms, used_of
from mesh.core.history.timeline import History
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import NO_USAGE, Event, Usage
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
    agents: tuple[str, ...] = ()
    """Agents involved: of an outcome those that it names, of a history all that got a task."""
    codes: tuple[str, ...] = ()
    """Distinct reason codes of refusals and failures."""
    used: Usage = NO_USAGE
    """Usage that the run was charged."""

    @property
    def took_ms(self) -> int | None:
        """Duration from the request to the end; None while it is open."""
        return None if self.ended_ms is None else self.ended_ms - self.opened_ms


def outcome_of(record: Record, event: Event | None = None) -> tuple[Event, dict[str, Any]] | None:
    """Return the outcome in a record of mesh.outcomes with its body; None for other records.

    `event`: what `read_event` made of it, if that is known.
    """
    found = event or read_event(record)
    if isinstance(found, Unreadable) or not found.type.startswith(OUTCOME_TYPE):
        return None
    try:
        body = orjson.loads(found.data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict) or not all(isinstance(body.get(n), str) for n in ("ending", "opened", "ended")):
        return None
    return found, body


def summary_of_outcome(event: Event, body: dict[str, Any]) -> Summary:
    """Summarise a run that ended, from its outcome alone."""
    request, used = body.get("request"), body.get("used")
    refusals = tuple(str(r.get("code", "")) for r in body.get("refusals", ()))
    failures = body.get("failures", ())
    failed = tuple(str(f.get("agent", "")) for f in failures)
    emitted = (str(r.get("agent", "")) for r in (*body.get("results", ()), *body.get("drafts", ())))
    return Summary(
        event.run_id,
        str(request.get("type", "")) if isinstance(request, dict) else "",
        event.subject,
        body["ending"],
        time_ms(body["opened"]),
        time_ms(body["ended"]),
        int(body.get("tasks", 0)),
        refusals,
        failed,
        starved=_names(body.get("starved", ())),
        unrouted=tuple(dict.fromkeys(str(fact.get("type", "")) for fact in body.get("unrouted", ()))),
        overspent=_names(body.get("overspent", ())),
        agents=tuple(dict.fromkeys(agent for agent in (*failed, *emitted) if agent)),
        codes=tuple(dict.fromkeys((*refusals, *(str(f.get("code", "")) for f in failures)))),
        used=used_of(used) if isinstance(used, dict) else NO_USAGE,
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
        tuple(dict.fromkeys(task.agent for task in history.tasks.values())),
        tuple(dict.fromkeys((*(r.code for r in history.refusals), *(f.code for f in history.failures)))),
        history.used,
    )


def _names(sentences: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct subjects of sentences: the join that starved, the budget that was overspent."""
    return tuple(dict.fromkeys(str(text).partition(":")[0] for text in sentences))
