"""Records ⇄ events on the mesh's own topics. Headers carry all control data; the value is the payload, unchanged.

The plain form is CloudEvents 1.0, Kafka protocol binding, binary mode. Attributes are headers named `ce_…`, except
`content-type` (binding §3.2.1). Facts about one delivery, not about the event, are headers `mesh-…`. The packed form
(`packed_form`) has one header. The mesh writes it on mesh.inbox and the topics of tasks only; both forms are read
everywhere.

`read_event` never raises: bytes that are not an event of the mesh become an `Unreadable`, which ends on mesh.dead.
Records of foreign producers are read by `core.ingress`, which is stricter about bodies and more lenient about form.
"""

from collections.abc import Callable
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple

from mesh.core.protocol.cloudevents_json import is_structured, unwrap
from mesh.core.protocol.event import (
    BATCH,
    EGRESS,
    JSON,
    KINDS,
    NO_USAGE,
    Event,
    Usage,
    rfc3339,
)
from mesh.core.protocol.header_values import (
    EXTENSIONS,
    duration_of,
    expiry_of,
    extensions_of,
    fault_headers,
    fault_of,
    usage_of,
)
from mesh.core.protocol.headers import HEADERS
from mesh.core.protocol.json_check import Flaw
from mesh.core.protocol.packed_form import PACKED, LaterVersion, pack, split_path, unpack
from mesh.core.protocol.record import Headers, NewRecord, PackedHeaders, Record, StoredRecord, UnreadValue, coordinates
from mesh.core.protocol.timestamps import parse_time

_JSON: Final = JSON.encode()
_KINDS: Final = {kind.encode(): kind for kind in KINDS}
_KIND_TEXTS: Final = {kind: kind for kind in KINDS}
"""The one string of each kind that all events share."""
(_CAUSE, _TASK, _EXPIRY, _LIFETIME, _SUBJECT, _USD, _TOKENS, _ORIGIN, _FAULT, _RETRY_AFTER, _TRACEPARENT) = (
    1 << n for n in range(11)
)
_TRACESTATE, _TOPOLOGY, _WAITED = 1 << 11, 1 << 12, 1 << 13
_WRITTEN: Final[dict[int, tuple[str, ...]]] = {
    0: (
        *("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type", "ce_correlationid"),
        "ce_meshkind",
    ),
    _CAUSE: ("ce_causationid",),
    _TASK: ("ce_meshtask", "ce_meshagent", "ce_meshdepth", "ce_meshpath", "mesh-attempt"),
    _EXPIRY: ("ce_expirytime",),
    _LIFETIME: ("mesh-lifetime-ms",),
    _SUBJECT: ("ce_subject",),
    _USD: ("ce_meshusd",),
    _TOKENS: ("ce_meshtokens",),
    _ORIGIN: ("mesh-origin",),
    _FAULT: tuple(f"mesh-error-{name}" for name in ("code", "class", "message", "retryable", "stack")),
    _RETRY_AFTER: ("mesh-error-retry-after-ms",),
    _TRACEPARENT: ("traceparent",),
    _TRACESTATE: ("tracestate",),
    _TOPOLOGY: ("ce_meshtopology",),
    _WAITED: ("mesh-waited-ms",),
}
"""Names in the order in which `event_headers` adds their values. Many records share few lists: see `PackedHeaders`."""


_NEEDED: Final = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_meshkind", "ce_correlationid")
_READ: Final = (
    *(*_NEEDED, "ce_causationid", "ce_meshagent", "ce_meshtask", "ce_meshdepth", "ce_meshpath", "mesh-attempt"),
    *("content-type", "ce_time", "ce_subject", "ce_expirytime", "traceparent", "tracestate", "ce_meshusd"),
    *("ce_meshtokens", "mesh-origin", "ce_meshtopology", "mesh-waited-ms"),
)
"""Names in the order in which `_read_packed` takes their values. Records with further relevant headers are rare."""
_NEVER_BESIDE: Final = frozenset(name for name, _ in HEADERS) - {"content-type", "traceparent", "tracestate"}
"""Headers that no record in packed form has. Tools may add the other three to any record; they count for nothing."""
_RARE: Final = frozenset(name for name, _ in HEADERS).difference(_READ)


class Unreadable(NamedTuple):
    """The reason why a record is not an event: a reason code and a sentence."""

    code: str
    message: str


def read_event(record: Record) -> Event | Unreadable:
    """Read the event in a record of the mesh's own topics (inbox, tasks, outcomes)."""
    headers, value = record.headers, record.value
    if value is not None:
        if headers.__class__ is PackedHeaders:
            event = _read_packed(record, headers, value)
            if event is not None:
                return event
        elif len(headers) == 1 and headers[0][0] == PACKED:
            return _read_one(record, value, headers[0][1])
    h: dict[str, Any] = dict(headers)
    if value is None:
        return Unreadable("empty_value", "the record has no value; expected an event's payload")
    if PACKED in h:
        return _read_one(record, value, h[PACKED], headers)
    if h.get("ce_specversion") != b"1.0":
        return _other_form(record, h)
    if len(h) != len(headers) and (name := _repeated_attribute(headers)):
        return Unreadable("bad_header", f"header {name!r} stands twice")
    try:
        return Event(  # positional: keywords take 1.4 µs more, 40 % of this function
            h["ce_id"].decode(),
            h["ce_source"].decode(),
            h["ce_type"].decode(),
            _KINDS.get(h["ce_meshkind"]) or h["ce_meshkind"].decode(),
            h["ce_correlationid"].decode(),
            value,
            record.timestamp,
            h["ce_causationid"].decode() if "ce_causationid" in h else "",
            h["ce_meshagent"].decode() if "ce_meshagent" in h else "",
            h["ce_meshtask"].decode() if "ce_meshtask" in h else "",
            int(h["ce_meshdepth"]) if "ce_meshdepth" in h else 0,
            split_path(h["ce_meshpath"].decode()) if "ce_meshpath" in h else (),
            int(h["mesh-attempt"]) if "mesh-attempt" in h else 1,
            JSON if h.get("content-type", _JSON) == _JSON else h["content-type"].decode(),
            h["ce_time"].decode() if "ce_time" in h else "",
            h["ce_subject"].decode() if "ce_subject" in h else "",
            expiry_of(h, record.timestamp) if "ce_expirytime" in h or "mesh-lifetime-ms" in h else None,
            h["traceparent"].decode() if "traceparent" in h else "",
            h["tracestate"].decode() if "tracestate" in h else "",
            usage_of(h.get("ce_meshusd", 0), h.get("ce_meshtokens", 0))
            if "ce_meshusd" in h or "ce_meshtokens" in h
            else NO_USAGE,
            fault_of(h) if "mesh-error-code" in h else None,
            h["mesh-origin"].decode() if "mesh-origin" in h else coordinates(record),
            h["ce_meshtopology"].decode() if "ce_meshtopology" in h else "",
            extensions_of(h) if EXTENSIONS in h else (),
            duration_of(h["mesh-waited-ms"]) if "mesh-waited-ms" in h else 0,
        )
    except KeyError as missing:
        return Unreadable("missing_header", f"header {missing.args[0]!r} is missing")
    except UnicodeDecodeError as bad:  # another name than below: a compiled variable has one type
        return Unreadable("bad_header", f"a header is not UTF-8: {bad.reason} at byte {bad.start}")
    except ValueError as error:
        return Unreadable("bad_header", f"a header does not parse: {str(error)[:200]}")
    except (AttributeError, TypeError):
        null = next((name for name in h if h[name] is None), None)  # Kafka allows null headers
        if null is None:
            raise
        return Unreadable("bad_header", f"header {null!r} has no value")


def _read_one(record: Record, value: bytes, packed: bytes | None, headers: Headers = ()) -> Event | Unreadable:
    """Read an event in packed form. `headers`: all of the record, if there are others."""
    if headers and (other := _other_form_in(headers)):
        return Unreadable("bad_header", f"header {other!r:.64} stands beside {PACKED!r}")
    if packed is None:  # Kafka allows null headers
        return Unreadable("bad_header", f"header {PACKED!r} has no value")
    try:
        event = unpack(packed, value, record.timestamp)
    except LaterVersion as later:
        return Unreadable("later_version", f"header {PACKED!r}: {later}")
    except ValueError as error:
        return Unreadable("bad_header", f"header {PACKED!r}: {str(error)[:200]}")
    if not event.origin:
        event.origin = coordinates(record)
    if event.expiry_ms is not None and event.expiry_ms < 0:
        event.expiry_ms = record.timestamp - event.expiry_ms
    return event


def _other_form_in(headers: Headers) -> str:
    """Return a header that no record in packed form has beside its own; "" if there is none."""
    names = [name for name, _ in headers]
    found = next((name for name in names if name in _NEVER_BESIDE or name.startswith("ce_")), "")
    return found or (PACKED if names.count(PACKED) > 1 else "")


def _read_packed(record: Record, headers: PackedHeaders, value: bytes) -> Event | None:
    """Read an event with all headers decoded at once; None where `read_event` has to check each of them."""
    take = _getter_for(headers.names)
    if take is None:
        return None
    try:
        texts: list[str | None] = [*b"\0".join(headers.values).decode("ascii").split("\0"), None]
        if len(texts) != len(headers.names) + 1:
            return None  # a value contains a NUL
        version, id, source, type, kind, run_id, cause, agent, task, depth, path, attempt, *rest = take(texts)
        content_type, time, subject, expiry, traceparent, tracestate, usd, tokens, origin, topology, waited = rest
        if version != "1.0":
            return None
        return Event(  # positional, as below
            id,
            source,
            type,
            _KIND_TEXTS.get(kind, kind),
            run_id,
            value,
            record.timestamp,
            cause or "",
            agent or "",
            task or "",
            0 if depth is None else int(depth),
            split_path(path) if path else (),
            1 if attempt is None else int(attempt),
            JSON if content_type is None or content_type == JSON else content_type,
            time or "",
            subject or "",
            None if expiry is None else parse_time(expiry),
            traceparent or "",
            tracestate or "",
            NO_USAGE if usd is tokens is None else usage_of(0 if usd is None else usd, 0 if tokens is None else tokens),
            None,
            coordinates(record) if origin is None else origin,
            topology or "",
            (),
            0 if waited is None else duration_of(waited),
        )
    except (TypeError, ValueError):  # a header without a value, or one that does not parse
        return None


@lru_cache(maxsize=256)
def _getter_for(names: tuple[str, ...]) -> Callable[[Any], Any] | None:
    """Return a getter of the values of `_READ` from those of these headers, followed by None.

    Returns None where a header is missing, appears twice, or needs a check of its own.
    """
    at = {name: place for place, name in enumerate(names)}
    if len(at) != len(names) or not at.keys() >= set(_NEEDED) or not _RARE.isdisjoint(at):
        return None
    return itemgetter(*(at.get(name, len(names)) for name in _READ))


def internal_headers(event: Event) -> Headers:
    """Return the headers of an event on mesh.inbox or a topic of tasks: the packed form, where JSON carries it."""
    try:
        return [(PACKED, pack(event))]
    except TypeError:
        return event_headers(event)


def plain_headers(headers: Headers) -> Headers:
    """Return headers in plain form, whatever their form is. Headers without an event stay as they are."""
    packed = next((value for name, value in headers if name == PACKED), None)
    if packed is None:
        return headers
    try:
        event = unpack(packed, b"", 0)
    except ValueError:
        return headers
    others = [header for header in headers if header[0] != PACKED]
    return [*event_headers(event), *others] if others else event_headers(event)


def plain_record(record: NewRecord) -> NewRecord:
    """Return a record of the mesh's own in plain form, whatever its form is."""
    headers = record.headers
    if len(headers) != 1 or headers[0][0] != PACKED:
        return record
    return record._replace(headers=plain_headers(headers))


def event_headers(event: Event) -> PackedHeaders:
    """Return the headers of an event in plain form, which is binary mode; the value of the record is `event.data`."""
    values = [
        b"1.0",
        event.id.encode(),
        event.source.encode(),
        event.type.encode(),
        (event.time or rfc3339(event.at_ms)).encode(),
        event.content_type.encode(),
        event.run_id.encode(),
        event.kind.encode(),
    ]
    add, has = values.append, 0
    if event.cause_id:
        has |= _CAUSE
        add(event.cause_id.encode())
    if event.task_id:
        has |= _TASK
        values += (
            event.task_id.encode(),
            event.agent.encode(),
            b"%d" % event.depth,
            ",".join(event.path).encode(),
            b"%d" % event.attempt,
        )
    if (expiry_ms := event.expiry_ms) is not None:
        has |= _EXPIRY if expiry_ms >= 0 else _LIFETIME
        add(rfc3339(expiry_ms).encode() if expiry_ms >= 0 else b"%d" % -expiry_ms)
    if event.subject:
        has |= _SUBJECT
        add(event.subject.encode())
    if event.usage is not NO_USAGE:
        has |= _add_usage(event.usage, values)
    if event.origin:
        has |= _ORIGIN
        add(event.origin.encode())
    if event.fault:
        fault = fault_headers(event.fault)
        has |= _FAULT if len(fault) == len(_WRITTEN[_FAULT]) else _FAULT | _RETRY_AFTER
        values += [value for _, value in fault]
    if event.traceparent:
        has |= _TRACEPARENT
        add(event.traceparent.encode())
        if event.tracestate:
            has |= _TRACESTATE
            add(event.tracestate.encode())
    if event.topology:
        has |= _TOPOLOGY
        add(event.topology.encode())
    if event.waited_ms:
        has |= _WAITED
        add(b"%d" % event.waited_ms)
    if event.extensions:
        return _with_extensions(has, values, event)
    return PackedHeaders(_header_names(has), values)


def _add_usage(usage: Usage | None, values: list[bytes]) -> int:
    """Append the values of a usage and return their header groups."""
    if usage is None:
        values.append(b"invalid")
        return _USD
    has = 0
    if usage.usd_micros:
        has |= _USD
        values.append(b"%d" % usage.usd_micros)
    if usage.tokens:
        has |= _TOKENS
        values.append(b"%d" % usage.tokens)
    return has


@lru_cache(maxsize=256)
def _header_names(has: int) -> tuple[str, ...]:
    """Return the header names of an event that has these header groups."""
    return tuple(name for group, names in _WRITTEN.items() if group & has == group for name in names)


def _with_extensions(has: int, values: list[bytes], event: Event) -> PackedHeaders:
    names, listed = event.extensions[::2], event.kind != EGRESS
    more = [",".join(names).encode()] if listed else []
    more += [value.encode() for value in event.extensions[1::2]]
    return PackedHeaders(_header_names_extended(has, names, listed), values + more)


@lru_cache(maxsize=256)
def _header_names_extended(has: int, names: tuple[str, ...], listed: bool) -> tuple[str, ...]:
    """As `_header_names`, plus extension attributes. Events that leave the mesh do not list them: no mesh reads
    those."""
    return (*_header_names(has), *((EXTENSIONS,) if listed else ()), *(f"ce_{name}" for name in names))


def is_json(content_type: str) -> bool:
    """Whether a payload of this media type is one JSON document."""
    if content_type == JSON:
        return True
    bare = content_type.partition(";")[0].strip().lower()
    return bare in ("", JSON, "text/json") or (bare.endswith("+json") and bare != BATCH)


def _repeated_attribute(headers: Headers) -> str | None:
    """Return an attribute that appears twice: two readers could see two different events."""
    names = [name for name, _ in headers if name.startswith("ce_")]
    return next((name for n, name in enumerate(names) if name in names[:n]), None)


def _other_form(record: Record, h: dict[str, Any]) -> Event | Unreadable:
    """Read a record that is not in binary mode: the attributes of a structured event count as headers."""
    if isinstance(record.value, UnreadValue):
        return Unreadable(record.value.code, record.value.message)
    content_type = (h.get("content-type") or b"").decode("utf-8", "replace")
    if "ce_specversion" in h or not is_structured(content_type):
        return Unreadable("not_cloudevents", f"ce_specversion is {h.get('ce_specversion')!r:.64}; expected b'1.0'")
    found = unwrap(record.value or b"", content_type)
    if isinstance(found, Flaw):
        return Unreadable(found.code, found.message)
    headers = [(name, value) for name, value in record.headers if name.startswith(("mesh-", "trace"))]
    headers += [(f"ce_{name}", text.encode()) for name, text in found.attributes.items()]
    headers.append(("content-type", found.content_type.encode()))
    return read_event(
        StoredRecord(record.topic, record.partition, record.offset, record.timestamp, record.key, found.data, headers)
    )
