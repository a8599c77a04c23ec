"""Records to append in place of a record that the log refused.

A refused record must not stop its partition, so a record that reports the refusal is appended instead. `replacements`
yields what to try, each record smaller than the one before; the last one takes at most `RECORD_BYTES_MIN` bytes:

    a task or an answer   a failure of that task: first without its stack, then without the input, then without texts
    an outcome            the same outcome without payloads; lists are cut at their end, and what is missing is counted
    anything else         a dead letter that points at the record: first without its value and its large headers,
                          then without all headers that are not the mesh's own

A task or an answer whose ids alone are too large was not made by the mesh; it becomes a dead letter, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from mesh.core.protocol.codec import plain_headers, plain_record, read_event
from mesh.core.protocol.event import FAILED, JSON, OUTCOME, STACK_BYTES_MAX, SUCCEEDED, TASK, Event, Fault, derive_id
from mesh.core.protocol.record import RECORD_BYTES_MAX, RECORD_BYTES_MIN, Headers, NewRecord, StoredRecord, record_bytes
from mesh.core.publishing.effect_records import DEAD_LETTER_HEADERS, dead_letter, inbox_record
from mesh.core.run.effects import DeadLetter
from mesh.core.topology.model import Topology

HEADERS_KEPT_MAX: Final = 64
"""Number of headers of a refused record that a dead letter keeps; the last ones."""
NAME_BYTES_MAX: Final = 256
"""Size of the longest header name that a dead letter keeps."""
TEXT_CHARS_MAX: Final = 256
"""Length to which texts are cut."""
ID_BYTES_MAX: Final = 256
"""Size of the longest id that is kept. A longer one is omitted, since a cut id would be another id."""
HEADERS_SHED: Final = frozenset({"ce_subject", "traceparent", "tracestate"})
"""Headers that the replacement of an outcome may lack."""
LISTS: Final = ("requests", "failures", "refusals", "redrives", "starved", "unrouted", "overspent", "drafts", "results")
"""Lists of an outcome that may be cut, the most important first; `<name>_omitted` counts the missing entries."""
_LETTER_NAMES: Final = frozenset(name for name, _ in DEAD_LETTER_HEADERS)
_LETTER_TEXTS: Final = frozenset({"__dlq.errors.message", "__connect.errors.exception.class.name", "mesh-dlq-omitted"})
_STACK: Final = "__connect.errors.exception.stacktrace"
_COUNTER_BYTES: Final = 256
"""Upper bound for the names of all counters, their digits and the commas of lists."""


def replacements(record: NewRecord, code: str, message: str, topology: Topology, bytes_max: int) -> Iterator[NewRecord]:
    """Yield records to append in place of one that the log refused with this code.

    Each is to be tried when the log refused the one before as too large. `bytes_max`: the limit of the log. A topic may
    have a lower limit that the mesh cannot know.
    """
    limit = bytes_max
    if code == "too_large":
        limit = min(limit, record_bytes(record) // 2) if record_bytes(record) <= bytes_max else limit
    while True:
        yield replacement_of(record, code, message, topology, bytes_max=limit)
        if limit <= RECORD_BYTES_MIN:
            return
        limit //= 2


def replacement_of(
    record: NewRecord, code: str, message: str, topology: Topology, *, bytes_max: int = RECORD_BYTES_MAX
) -> NewRecord:
    """Return the replacement of a refused record, of at most `bytes_max` or `RECORD_BYTES_MIN` bytes."""
    limit = max(bytes_max, RECORD_BYTES_MIN)
    record = record._replace(headers=plain_headers(record.headers))
    headers = {name: value for name, value in record.headers if value is not None}
    # A dead letter repeats the headers of a failed record, which may claim to be any kind.
    kind = "" if "mesh-dlq-id" in headers else headers.get("ce_meshkind", b"").decode("ascii", "replace")
    size = len(record.value or b"")
    text = _cut(f"the log refused a record for {record.topic} ({size} bytes): {message}")
    small = None
    if kind in (TASK, SUCCEEDED, FAILED):
        small = _failure(record, Fault(f"refused_{code}", text, retryable=False), topology, limit)
    elif kind == OUTCOME and record.topic == topology.outcomes:
        small = _outcome(record, text, limit)
    return _letter(record, headers, code, text, topology, limit) if small is None else small


# ------------------------------------------------------------------------------------------------------------ failures


def _failure(record: NewRecord, fault: Fault, topology: Topology, limit: int) -> NewRecord | None:
    """Return a failure of the task that was refused, or whose answer was; None if none is small enough."""
    refused = read_event(StoredRecord(record.topic, 0, 0, 0, record.key, record.value, record.headers))
    if not isinstance(refused, Event):
        return None
    tried = (inbox_record(event, topology) for event in _failures(refused, fault))
    # A log that writes the plain form takes it, too.
    return next((new for new in tried if max(record_bytes(new), record_bytes(plain_record(new))) <= limit), None)


def _failures(refused: Event, fault: Fault) -> Iterator[Event]:
    """Yield failures of one task, the largest first."""
    said = refused.fault
    if said is not None and said.stack:  # without the stack the input may fit, which a retry needs
        short = said._replace(message=_cut(said.message), cls=_cut(said.cls), stack="")
        yield replace(refused, fault=short)
    if said is not None:
        fault = fault._replace(message=f"{fault.message}; it said: {said.code}: {said.message}")
    answer = replace(refused, kind=FAILED, data=b"null", content_type=JSON, fault=fault)
    answer.id = f"{refused.id.removesuffix(f':{refused.kind}')}:{FAILED}"
    answer.origin = "" if refused.kind == TASK else refused.origin
    yield answer
    path = answer.path if len(",".join(answer.path)) <= 4 * ID_BYTES_MAX else ()
    yield replace(
        answer,
        source=_cut(answer.source),
        type=_cut(answer.type),
        time=_id(answer.time),
        cause_id=_id(answer.cause_id),
        origin=_id(answer.origin),
        path=path,
        subject="",
        traceparent="",
        tracestate="",
        fault=fault._replace(message=_cut(fault.message)),
    )


# ------------------------------------------------------------------------------------------------------------ outcomes


def _outcome(record: NewRecord, text: str, limit: int) -> NewRecord | None:
    """Return the outcome with as much content as fits; None if the value is not an outcome."""
    try:
        body = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict):
        return None
    headers = record.headers
    if record_bytes(record._replace(value=b"")) > limit // 2:
        headers = [header for header in headers if header[0] not in HEADERS_SHED]
    if not isinstance(body.get("results"), list):  # the answer to a request that opened no run
        body["message"] = _cut(str(body.get("message", "")))
        small = record._replace(value=orjson.dumps(body), headers=headers)
    else:
        room = limit - record_bytes(record._replace(value=b"", headers=headers)) - _COUNTER_BYTES
        small = record._replace(value=orjson.dumps(shorten_outcome(body, text, room)), headers=headers)
    return small if record_bytes(small) <= limit else None


def shorten_outcome(body: Mapping[str, Any], why: str, room: int) -> dict[str, Any]:
    """Return an outcome's body without payloads, of at most `room` bytes. Lists are cut at their end, and counted."""
    request = body.get("request") or {}
    short = {name: value for name, value in body.items() if name not in LISTS}
    short["request"] = {"ids": [], "type": _cut(str(request.get("type", ""))), "fingerprints": []}
    short |= {name: [] for name in LISTS[1:]}
    short["omitted"] = why
    room -= len(orjson.dumps(short))
    for name, whole in lists_of(body).items():
        fits = name not in ("drafts", "results") and _list_bytes(whole) <= room // 2
        kept = list(whole) if fits else _fitting([_entry(name, item) for item in whole], room)
        room -= _list_bytes(kept)
        if name == "requests":
            short["request"]["ids"] = [id for id, _ in kept]
            short["request"]["fingerprints"] = [fingerprint for _, fingerprint in kept]
        else:
            short[name] = kept
        missing = len(whole) - len(kept) + int(body.get(f"{name}_omitted", 0))
        if missing:
            short[f"{name}_omitted"] = missing
    return short


def lists_of(body: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Return the lists of an outcome's body that may be cut. A request is a pair of its id and its fingerprint."""
    request = body.get("request") or {}
    found: dict[str, Sequence[Any]] = {name: body.get(name) or () for name in LISTS}
    found["requests"] = list(zip(request.get("ids", ()), request.get("fingerprints", ()), strict=False))
    return found


def _entry(name: str, item: Any) -> Any:
    """Return one entry of a list, shortened."""
    if name in ("results", "drafts"):
        keys = ("type", "id", "agent") if name == "results" else ("type", "agent", "letter")
        return {**{key: item.get(key) for key in keys}, "omitted": "refused_too_large"}
    if name in ("failures", "refusals", "unrouted"):
        path = {} if name == "unrouted" else {"path": (item.get("path") or ())[-8:]}
        return {**item, "message": _cut(str(item.get("message", ""))), **path}
    return _cut(item) if name == "starved" else item


def _fitting(items: Sequence[Any], room: int) -> list[Any]:
    """Return as many of the first items as fit."""
    kept: list[Any] = []
    for item in items:
        room -= _list_bytes([item])
        if room < 0:
            break
        kept.append(item)
    return kept


def _list_bytes(items: Sequence[Any]) -> int:
    """Return the bytes of items within a list."""
    return sum(len(orjson.dumps(item)) + 2 for item in items)


# -------------------------------------------------------------------------------------------------------- dead letters


def _letter(
    record: NewRecord, headers: Mapping[str, bytes], code: str, text: str, topology: Topology, limit: int
) -> NewRecord:
    """Return a dead letter without the value. A replaced dead letter keeps its reason and coordinates."""
    if "mesh-dlq-id" in headers:
        dead = record
    else:
        # A record for the inbox names the record that it answers, which may still have the bytes.
        origin = headers.get("mesh-origin", b"").decode("utf-8", "replace") if record.topic == topology.inbox else ""
        made = DeadLetter(
            id=derive_id("refused", record.topic, headers.get("ce_id", b"").decode("utf-8", "replace")),
            code=f"refused_{code}",
            message=text,
            value=None,
            key=record.key,
            headers=record.headers,
            origin=origin or record.topic,
            run_id=headers.get("ce_correlationid", b"").decode("utf-8", "replace")[:128],
        )
        dead = dead_letter(made, topology)
    kept = _kept_headers([*dead.headers, ("mesh-dlq-omitted", text.encode("utf-8", "replace"))])
    # A copy goes to the same partition: under its own key, or under its id.
    key = dead.key if dead.key is not None and len(dead.key) <= ID_BYTES_MAX else dict(kept).get("mesh-dlq-id")
    letter = NewRecord(topology.dead, key, None, kept)
    if record_bytes(letter) <= limit:
        return letter
    own = {name: value for name, value in kept if name in _LETTER_NAMES and name != _STACK}
    small = [(name, value) for name, value in own.items() if name in _LETTER_TEXTS or len(value) <= ID_BYTES_MAX]
    return NewRecord(topology.dead, key, None, small)


def _kept_headers(headers: Headers) -> list[tuple[str, bytes]]:
    """Return the last headers of a dead letter, without large ones; the mesh's own texts are cut."""
    kept = []
    for name, value in headers:
        if value is None or len(name.encode()) > NAME_BYTES_MAX:
            continue
        if name in _LETTER_TEXTS:
            value = _cut(value.decode("utf-8", "replace")).encode("utf-8", "replace")
        if len(value) <= STACK_BYTES_MAX:
            kept.append((name, value))
    return kept[-HEADERS_KEPT_MAX:]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[: TEXT_CHARS_MAX - 1]}…"


def _id(text: str) -> str:
    return text if len(text.encode()) <= ID_BYTES_MAX else ""
