"""Records of ingress topics → requests as sent: plain JSON, GitHub's webhooks, CloudEvents in both modes.

No function here raises. `admission` decides whether a request is accepted.
"""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import orjson

from mesh.core.ingress.trace_context import NO_TRACE, Trace, trace_of
from mesh.core.protocol.cloudevents_json import is_structured, unwrap
from mesh.core.protocol.event import JSON
from mesh.core.protocol.json_check import Flaw, parse_strict
from mesh.core.protocol.record import Record, UnreadValue, coordinates
from mesh.core.topology.model import Topology

TEXT_CHARS_MAX: Final = 1_024
"""Limit for `source`, `subject` and every other attribute that is text."""
ENVELOPE_BYTES_MAX: Final = 65_536
"""Limit for a structured event beyond its payload."""
_REQUIRED: Final = frozenset({"specversion", "id", "source", "type"})
"""A record with one of these attributes is a CloudEvent, so the others are required."""
_READ: Final = frozenset(
    {
        *("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"),
        *("correlationid", "causationid", "expirytime", "traceparent", "tracestate"),
    }
)
"""Attributes that have a field of their own in an event."""
_NAME: Final = re.compile(r"[a-z0-9]{1,64}", re.ASCII)
_KNOWN: Final = {
    **{f"ce_{name}": name for name in _READ},
    **{name: name for name in ("content-type", "x-github-event", "x-github-delivery")},
}
_TRACES: Final = frozenset({"traceparent", "tracestate"})


class Rejection(NamedTuple):
    """A request that opens no run. `run_id`: the run under which a client may be waiting for an answer."""

    code: str
    message: str
    run_id: str = ""


class Request(NamedTuple):
    """A request as sent; None and "" mean that a value is missing."""

    type: str
    data: bytes
    id: str | None = None
    source: str = ""
    run_id: str | None = None
    subject: str = ""
    time: str = ""
    expiry: str | None = None
    cause_id: str = ""
    content_type: str = JSON
    traceparent: str = ""
    tracestate: str = ""
    origin: str = ""
    extensions: tuple[str, ...] = ()
    """As `Event.extensions`."""
    topic: str = ""
    """The ingress topic of the record; "" for a client that writes to the inbox itself."""
    key: bytes | None = None
    """The record's key. It is the ordering key where the topic orders its events and declares no field for it."""


def request_of(record: Record, topology: Topology) -> Request | Rejection:
    """Read the request in a record of an ingress topic."""
    if record.value is None:
        return Rejection("empty_value", "the record has no value; expected JSON or a CloudEvent")
    if isinstance(record.value, UnreadValue):
        return Rejection(record.value.code, record.value.message)
    headers = _headers(record) if record.headers else _NO_HEADERS
    if isinstance(headers, Rejection):
        return headers
    found = headers.found
    if not found:
        return _plain(record, headers, topology)
    if is_structured(found.get("content-type", "")):
        return _read_structured(record, headers, topology)
    if not _REQUIRED.isdisjoint(found):
        return _attributes(record, found, record.value, found.get("content-type", JSON), headers, headers.extended)
    return _plain(record, headers, topology)


class _Headers(NamedTuple):
    """The headers of a record that are read here. `found`: CloudEvents attributes by name, and others in lower case.

    Only the others contain a hyphen. `parents`, `states`: headers of the trace, in order.
    """

    found: dict[str, str]
    parents: list[str]
    states: list[str]
    extended: bool
    """Whether there are extension attributes."""


_NO_HEADERS: Final = _Headers({}, [], [], False)


def _headers(record: Record) -> _Headers | Rejection:
    """Collect the headers that are read. Other headers may contain any bytes. An invalid trace does not reject."""
    found: dict[str, str] = {}
    parents: list[str] = []
    states: list[str] = []
    extended = False
    for name, value in record.headers:
        if value is None:
            continue
        known = _KNOWN.get(name)
        if known is None:
            lower = name.lower()
            if lower in _TRACES:
                (parents if lower == "traceparent" else states).append(value.decode("utf-8", "replace"))
                continue
            known = _KNOWN.get(lower)
            if known is None:
                known = lower[3:]
                if not lower.startswith("ce_") or not _NAME.fullmatch(known):
                    continue
                extended = True
        if known in found:
            return Rejection("bad_header", f"header {name.lower()[:64]!r} stands twice")
        try:
            found[known] = value.decode()
        except UnicodeDecodeError as error:
            text = f"header {name.lower()[:64]!r} is not UTF-8: {error.reason} at byte {error.start}"
            return Rejection("bad_header", text)
    return _Headers(found, parents, states, extended)


def _trace(headers: _Headers, attributes: Mapping[str, str]) -> Trace:
    """Return the trace in the headers, else the one in the CloudEvent's attributes."""
    if headers.parents:
        trace = trace_of(headers.parents, headers.states)
        if trace.traceparent:
            return trace
    parent = attributes.get("traceparent")
    if parent is None:
        return NO_TRACE
    state = attributes.get("tracestate")
    return trace_of([parent], [] if state is None else [state])


def _extensions(attributes: Mapping[str, str]) -> tuple[str, ...]:
    """Return the attributes that are passed on to events that leave the mesh: extensions, and `dataschema`."""
    names = sorted(name for name in attributes.keys() - _READ if "-" not in name and not name.startswith("mesh"))
    return tuple(text for name in names for text in (name, attributes[name]))


def _plain(record: Record, headers: _Headers, topology: Topology) -> Request | Rejection:
    rule = topology.topics.get(record.topic)
    if rule is None or rule.ingress is None:
        return Rejection("unknown_type", f"topic {record.topic} declares no ingress type for records that bring none")
    found, value = headers.found, record.value or b""
    trace = _trace(headers, found) if found or headers.parents else NO_TRACE
    if not found:
        request = Request(rule.ingress, value, origin=coordinates(record), topic=record.topic, key=record.key)
        return request if trace is NO_TRACE else request._replace(**trace._asdict())
    id, subject = None, found.get("subject", "")
    if "x-github-event" in found:
        delivery = _delivery(found, value)
        if isinstance(delivery, Flaw):
            return Rejection(*delivery)
        id, about, value = delivery
        subject = subject or about
    return Request(
        type=rule.ingress,
        data=value,
        id=id,
        run_id=found.get("correlationid"),
        subject=subject,
        time=found.get("time", ""),
        expiry=found.get("expirytime"),
        cause_id=found.get("causationid", ""),
        content_type=found.get("content-type", JSON),
        traceparent=trace.traceparent,
        tracestate=trace.tracestate,
        origin=coordinates(record),
        extensions=_extensions(found) if headers.extended else (),
        topic=record.topic,
        key=record.key,
    )


def _delivery(headers: Mapping[str, str], body: bytes) -> tuple[str | None, str, bytes] | Flaw:
    """Return id, subject and payload of a webhook of GitHub, whose headers name its event and its delivery.

    The payload is `{"event": …, "payload": …}`, which contains the body byte for byte.
    """
    document = parse_strict(body)
    if isinstance(document, Flaw):
        return document
    event = headers["x-github-event"]
    action = document.get("action") if isinstance(document, dict) else None
    subject = f"{event}/{action}" if isinstance(action, str) else event
    payload = b'{"event":%b,"payload":%b}' % (orjson.dumps(event), body)
    return headers.get("x-github-delivery"), subject[:TEXT_CHARS_MAX], payload


def _read_structured(record: Record, headers: _Headers, topology: Topology) -> Request | Rejection:
    value = record.value or b""
    limit = topology.limits.payload_bytes_max + ENVELOPE_BYTES_MAX
    if len(value) > limit:
        return Rejection("too_large", f"the structured event has {len(value)} bytes; at most {limit}")
    found = unwrap(value, headers.found["content-type"])
    if isinstance(found, Flaw):
        return Rejection(found.code, found.message)
    return _attributes(record, found.attributes, found.data or b"", found.content_type, headers, True)


def _attributes(
    record: Record, attributes: Mapping[str, str], data: bytes, content_type: str, headers: _Headers, extended: bool
) -> Request | Rejection:
    if attributes.get("specversion") != "1.0":
        return Rejection("not_cloudevents", f"specversion is {attributes.get('specversion')!r:.64}; expected '1.0'")
    missing = [name for name in ("id", "source", "type") if not attributes.get(name)]
    if missing:
        code = "bad_id" if missing[0] == "id" else "missing_header"
        return Rejection(code, f"CloudEvents attribute {missing[0]!r} is missing or empty")
    return Request(  # in the order of its fields: keywords make the admission of a CloudEvent 5 % slower
        attributes["type"],
        data,
        attributes["id"],
        attributes["source"],
        attributes.get("correlationid"),
        attributes.get("subject", ""),
        attributes.get("time", ""),
        attributes.get("expirytime"),
        attributes.get("causationid", ""),
        content_type,
        *_trace(headers, attributes),
        coordinates(record),
        _extensions(attributes) if extended else (),
        record.topic,
        record.key,
    )
