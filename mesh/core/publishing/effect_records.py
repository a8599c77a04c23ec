"""Effects → records to append: the only place that knows the form of each effect on the log.

`Schedule` and `Note` become no records: a service keeps timers and counts notes. `due_record` makes the record of a
timer that is due.
"""

from collections.abc import Set
from typing import Any, Final

import orjson

from mesh.core.protocol.codec import event_headers, internal_headers
from mesh.core.protocol.event import ADOPTED, DUE, NO_USAGE, OUTCOME, STACK_BYTES_MAX, Event, Usage, derive_id, rfc3339
from mesh.core.protocol.record import RECORD_BYTES_MIN, NewRecord, UnreadValue, record_bytes, too_large_message
from mesh.core.run.control import ALL, BREAKER, Switch, control_record
from mesh.core.run.dead_letter import redriven_refusals
from mesh.core.run.effects import Adopt, BreakerTransition, DeadLetter, Finish, PublishEvent, PublishTask, Schedule
from mesh.core.run.state import Draft, Result, Run
from mesh.core.state.partition_state import RULES
from mesh.core.state.topology_registry import era_record
from mesh.core.topology.model import Topology

OUTCOME_TYPE = "mesh.run."
"""`mesh.run.completed` and so on: the type of an outcome names the ending."""
OUTCOME_FIELDS: Final[tuple[tuple[str, str], ...]] = (
    ("run", "run id"),
    ("request", "`ids` of the requests and `fingerprints` of their bodies, in order; `type` of the first"),
    ("ending", "completed, partial, stopped, failed or cancelled; also in the type: `mesh.run.<ending>`"),
    ("results", "payloads that left the mesh: `type`, `id`, `agent`, and `data` (`text` where it is not JSON)"),
    ("refused", "number of refusals that no redrive took back"),
    ("refusals", "the first of them: `code`, `agent`, `path`, `limit`, `actual`, `message`"),
    ("failures", "tasks that failed for good: `agent`, `task_id`, `attempts`, `code`, `message`, `path`"),
    (
        "drafts",
        "last results of loops that a limit ended, one for each agent: `type`, `agent`, `letter` (its dead letter), "
        "and `data` (`text` where it is not JSON, `omitted` where the run was at its limit of bytes)",
    ),
    ("starved", "sentences naming joins that got some of their inputs, could never fire, and were still needed"),
    (
        "unrouted",
        "events without a consumer, or repeated inputs of a join: `type`, `agent` of the emitter, `message`, `times`",
    ),
    ("overspent", "sentences naming budgets that were exceeded"),
    ("tasks", "number of tasks made"),
    (
        "used",
        "`usd` and `tokens` that the tasks reported until the run ended; for an unfinished task, its reservation."
        " `mesh run show` adds later reports",
    ),
    ("opened", "log time of the first request, RFC 3339"),
    ("ended", "log time of the event that ended it, RFC 3339"),
    ("took_ms", "the difference in milliseconds"),
    ("generation", "how often a redrive opened the run again; the outcome with the highest number counts"),
    ("redrives", "ids of the redrives that took a failure or refusal back: `<dead letter>:r<n>`"),
    ("rules", "version of the decision rules that made this ending; 1 where it is missing"),
)
"""Every field of an outcome's body, with its meaning."""
OUTCOME_FIELDS_1: Final = frozenset(name for name, _ in OUTCOME_FIELDS) - {"drafts", "unrouted", "overspent", "rules"}
"""Fields of outcomes under version 1 of the rules."""
DEAD_LETTER_HEADERS: Final[tuple[tuple[str, str], ...]] = (
    ("__dlq.errors.topic", "topic of the record that failed (KIP-1191)"),
    ("__dlq.errors.partition", "its partition (KIP-1191)"),
    ("__dlq.errors.offset", "its offset (KIP-1191)"),
    ("__dlq.errors.delivery.count", "attempts made (KIP-1191)"),
    ("__dlq.errors.message", "the reason as a sentence (KIP-1191)"),
    ("mesh-dlq-id", "id of this dead letter; the same failure makes the same id again"),
    ("mesh-dlq-reason", "reason code, see below"),
    ("mesh-dlq-run", "run id, where there is one"),
    ("mesh-dlq-agent", "agent, where there is one"),
    ("mesh-dlq-task", "task id, where there is one"),
    ("__connect.errors.exception.class.name", "class of the exception, where there was one (Kafka Connect)"),
    ("__connect.errors.exception.stacktrace", "its stack, at most 8 KiB, secrets masked (Kafka Connect)"),
    ("mesh-dlq-omitted", "why the value is missing: the log refused the dead letter, or the record was not unpacked"),
)
"""Headers that a dead letter has besides those of the failed record."""
OUTCOME_CUTS: Final[tuple[tuple[str, str], ...]] = (
    ("omitted", "the reason; each remaining one of `results` has `omitted` instead of `data`"),
    ("requests_omitted", "number of requests that `request` does not list"),
    ("failures_omitted", "number of failures that are not listed"),
    ("refusals_omitted", "number of refusals that are not listed, of those that the run kept"),
    ("redrives_omitted", "number of redrives that are not listed"),
    ("starved_omitted", "number of joins that are not listed"),
    ("unrouted_omitted", "number of different unrouted events that are not listed"),
    ("overspent_omitted", "number of budgets that are not listed"),
    ("drafts_omitted", "number of drafts that are not listed; each listed one has `omitted` instead of `data`"),
    ("results_omitted", "number of results that are not listed"),
)
"""Further fields of a shortened outcome: see `core.publishing.replacement_records`."""


def inbox_record(event: Event, topology: Topology) -> NewRecord:
    """Return the inbox record of a request, an answer or a signal."""
    return NewRecord(topology.inbox, event.run_id.encode(), event.data, internal_headers(event))


def too_large(event: Event, topology: Topology, bytes_max: int) -> str:
    """Say by how much the record of a request is over the limit of the log; "" if it is not."""
    if len(event.data) + RECORD_BYTES_MIN <= bytes_max:
        return ""
    size = record_bytes(inbox_record(event, topology))
    return too_large_message(size, bytes_max) if size > bytes_max else ""


def record_of(
    effect: PublishTask | PublishEvent | DeadLetter | Finish | BreakerTransition | Adopt, topology: Topology
) -> NewRecord:
    """Return the record that performs an effect."""
    match effect:
        case PublishTask():
            return NewRecord(
                topology.tasks(effect.event.agent), effect.key, effect.event.data, internal_headers(effect.event)
            )
        case PublishEvent():
            key = effect.event.run_id.encode() if effect.key is None else effect.key
            return NewRecord(effect.topic, key, effect.event.data, event_headers(effect.event))
        case Finish():
            return _outcome(effect, topology)
        case DeadLetter():
            return dead_letter(effect, topology)
        case Adopt():
            return era_record(effect, topology)
        case BreakerTransition():
            id = derive_id(effect.run_id, effect.cause_id, BREAKER, effect.agent, effect.state)
            by = f"run {effect.run_id}"
            switch = Switch(BREAKER, effect.agent, effect.state, by, effect.why, effect.at_ms)
            return control_record(switch, topology, event_id=id)


def adopted_record(digest: str, partition: int, at_ms: int, topology: Topology) -> NewRecord:
    """Return the inbox record by which a partition opens further runs under the topology of this digest."""
    id = derive_id("adopted", partition, digest)
    event = _event(topology, id=id, type="mesh.topology.adopted", kind=ADOPTED, run_id=ALL, at_ms=at_ms)
    event.topology = digest
    return NewRecord(topology.inbox, ALL.encode(), event.data, internal_headers(event), partition)


def due_record(timer: Schedule, at_ms: int, topology: Topology) -> NewRecord:
    """Return the inbox record of a timer that is due. Firing it twice is harmless: only consuming it changes state."""
    event = _event(topology, id=timer.timer_id, type="mesh.timer", kind=DUE, run_id=timer.run_id, at_ms=at_ms)
    event.task_id, event.attempt = timer.task_id, timer.attempt or 1
    return inbox_record(event, topology)


def _event(topology: Topology, *, id: str, type: str, kind: str, run_id: str, at_ms: int) -> Event:
    """Make an event of the mesh itself, with an empty payload."""
    source = f"/mesh/{topology.name}"
    return Event(id=id, source=source, type=type, kind=kind, run_id=run_id, data=b"{}", at_ms=at_ms)


def dead_letter(dead: DeadLetter, topology: Topology) -> NewRecord:
    """Return value, key and headers unchanged, followed by the reason: names of KIP-1191 and Kafka Connect.

    The record may have such headers from another dead letter queue already: the last one of a name counts.
    """
    headers: list[tuple[str, bytes]] = list(dead.headers)
    if dead.origin:
        topic, partition, offset = dead.origin.rsplit(":", 2) if dead.origin.count(":") >= 2 else (dead.origin, "", "")
        headers.append(("__dlq.errors.topic", topic.encode()))
        if partition:
            headers += [("__dlq.errors.partition", partition.encode()), ("__dlq.errors.offset", offset.encode())]
    headers += [
        ("__dlq.errors.delivery.count", b"%d" % dead.attempts),
        ("__dlq.errors.message", dead.message.encode("utf-8", "replace")),
        ("mesh-dlq-id", dead.id.encode()),
        ("mesh-dlq-reason", dead.code.encode()),
    ]
    for name, text in (("run", dead.run_id), ("agent", dead.agent), ("task", dead.task_id)):
        if text:
            headers.append((f"mesh-dlq-{name}", text.encode()))
    if dead.cls:
        headers.append(("__connect.errors.exception.class.name", dead.cls.encode("utf-8", "replace")))
    if dead.stack:
        headers.append(("__connect.errors.exception.stacktrace", cap_stack(dead.stack).encode("utf-8", "replace")))
    if isinstance(dead.value, UnreadValue):
        headers.append(("mesh-dlq-omitted", dead.value.message.encode("utf-8", "replace")))
        return NewRecord(topology.dead, dead.key, None, headers)
    return NewRecord(topology.dead, dead.key, dead.value, headers)


def cap_stack(stack: str) -> str:
    """Return the end of a stack, at most 8 KiB as UTF-8. A cut stack begins with a note."""
    raw = stack.encode("utf-8", "replace")
    if len(raw) <= STACK_BYTES_MAX:
        return stack
    note = f"[cut: the end of {len(raw)} bytes]\n"
    return note + raw[len(note) - STACK_BYTES_MAX :].decode("utf-8", "ignore")


def outcome_body(run: Run) -> dict[str, Any]:
    """Return the outcome as JSON-able values; `OUTCOME_FIELDS` explains them."""
    gone = redriven_refusals(run)
    return {
        "run": run.id,
        "request": {"ids": run.requests[::2], "type": run.type, "fingerprints": run.requests[1::2]},
        "ending": run.ending,
        "results": [*map(_result, run.results)],
        "refused": run.refused - len(gone),
        "refusals": _standing(run, gone) if run.refusals else (),
        "failures": [failure._asdict() for failure in run.failures] if run.failures else (),
        "drafts": [*map(_draft, run.drafts)] if run.drafts else (),
        "starved": run.starved,
        "unrouted": [fact.as_dict() for fact in run.unrouted] if run.unrouted else (),
        "overspent": run.overspent,
        "tasks": run.tasks,
        "used": {"usd": run.usd_micros / 1_000_000, "tokens": run.tokens},
        "opened": rfc3339(run.opened_ms),
        "ended": rfc3339(run.ended_ms),
        "took_ms": run.ended_ms - run.opened_ms,
        "generation": run.trouble.generation,
        "redrives": run.trouble.redrives,
        "rules": RULES,
    }


def _outcome(finish: Finish, topology: Topology) -> NewRecord:
    run = finish.run
    event = Event(
        id=finish.event_id,
        source=f"/mesh/{topology.name}",
        type=OUTCOME_TYPE + run.ending,
        kind=OUTCOME,
        run_id=run.id,
        data=orjson.dumps(outcome_body(run)),
        at_ms=finish.at_ms,
        cause_id=finish.cause_id,
        subject=run.subject,
        traceparent=run.traceparent,
        tracestate=run.tracestate,
        usage=Usage(run.usd_micros, run.tokens) if run.usd_micros or run.tokens else NO_USAGE,
    )
    return NewRecord(topology.outcomes, run.id.encode(), event.data, event_headers(event))


def _standing(run: Run, gone: Set[int]) -> list[dict[str, Any]]:
    """Return the refusals that are kept and that no redrive took back."""
    numbered = enumerate(run.refusals, start=1)
    return [refusal._asdict() for number, refusal in numbered if number not in gone]


def _result(result: Result) -> dict[str, Any]:
    name, payload = _payload(result.data)
    return {"type": result.type, "id": result.id, "agent": result.agent, name: payload}


def _draft(draft: Draft) -> dict[str, Any]:
    name, payload = ("omitted", "state_bytes_max") if draft.omitted else _payload(draft.data)
    return {"type": draft.type, "agent": draft.agent, "letter": draft.letter, name: payload}


def _payload(data: bytes) -> tuple[str, Any]:
    """Return the field of a payload and its value: `data`, or `text` for a payload that is not JSON."""
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return "text", data.decode("utf-8", "backslashreplace")
    return "data", orjson.Fragment(data)
