"""Answers on mesh.outcomes to requests that were rejected, of the type `mesh.request.rejected`.

A request that opened no run is answered with a reason code. A request for an ended run whose outcome may be removed by
retention is answered, too, and the answer names the ending. Without it the sender would wait, and lists would show the
run as open. While the outcome is kept, it is the answer.
"""

from typing import Final, NamedTuple

import orjson

from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import OUTCOME, Event, derive_id
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.run.effects import DeadLetter, Effect, Note
from mesh.core.state.partition_state import Partition
from mesh.core.topology.model import Retention, Topology

DUPLICATE: Final = "duplicate_request"
LATE_LETTERS: Final = frozenset({"idempotency_conflict", "already_terminal"})
"""Other codes for a request for an ended run; the request then becomes a dead letter."""


class LateRequest(NamedTuple):
    """The answer to a request for a run that had ended."""

    run_id: str
    code: str
    message: str
    ending: str


def rejection_record(run_id: str, code: str, message: str, topology: Topology, *, ending: str = "") -> NewRecord:
    """Return the answer for clients that wait under this run id.

    `ending`: how the run had ended. Without it there is no run, and a corrected request may use the id again.
    """
    body = {"run": run_id, "code": code, "message": message} | ({"ending": ending} if ending else {})
    id, source, data = derive_id(run_id, "rejected", code), f"/mesh/{topology.name}", orjson.dumps(body)
    event = Event(id=id, source=source, type=REJECTED_TYPE, kind=OUTCOME, run_id=run_id, data=data)
    return NewRecord(topology.outcomes, run_id.encode(), event.data, event_headers(event))


def late_rejections(effect: Effect, state: Partition, topology: Topology) -> list[NewRecord]:
    """Return the answer to a request for a run whose outcome may be removed; nothing for any other effect."""
    match effect:
        case Note(code=code, run_id=run_id) if code == DUPLICATE:
            ended = state.ended.get(run_id)
        case DeadLetter(code=code, run_id=run_id) if code in LATE_LETTERS:
            ended = state.ended.get(run_id)
        case _:
            return []
    if ended is None or not _may_be_removed(ended.at_ms, state.at_ms, topology.retention):
        return []
    message = f"{effect.message}; its run had ended {ended.ending}"
    return [rejection_record(run_id, code, message, topology, ending=ended.ending)]


def _may_be_removed(ended_ms: int, now_ms: int, kept: Retention) -> bool:
    """Whether retention may have removed the outcome, or the records from which `mesh run list` reads the ending."""
    return any(0 <= limit_ms <= now_ms - ended_ms for limit_ms in (kept.outcomes_ms, kept.inbox_ms))


def parse_late_request(event: Event) -> LateRequest | None:
    """Read the answer to a request for an ended run; None for any other event of mesh.outcomes."""
    if event.type != REJECTED_TYPE:
        return None
    try:
        body = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return None
    texts = [body.get(name) for name in ("code", "message", "ending")] if isinstance(body, dict) else []
    code, message, ending = texts or ("", "", "")
    if not (isinstance(code, str) and isinstance(message, str) and isinstance(ending, str) and ending):
        return None
    return LateRequest(event.run_id, code, message, ending)


def late_request_in(record: Record) -> LateRequest | None:
    """As `parse_late_request`, from a record of mesh.outcomes."""
    event = read_event(record)
    return None if isinstance(event, Unreadable) else parse_late_request(event)
