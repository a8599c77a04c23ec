"""What upstream systems send → a `requested` event, or the reason why not. Nothing is guessed, nothing invented.

Taken are plain JSON (its type is that of the ingress topic), CloudEvents in binary mode and in structured mode.
The id of the event is, in this order: the CloudEvent's, the payload field that the topic declares, and the record's
coordinates. The run is the event's correlation id or follows from (source, id), so the same request sent twice,
through whatever door, is one run. Mesh headers (`ce_mesh…`) of foreign producers are not read.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from mesh.core.codec import is_json, parse_time
from mesh.core.condition import parse_path
from mesh.core.event import ID_PATTERN, JSON, REQUESTED, Event, run_id_of
from mesh.core.record import Record, coordinates
from mesh.core.strict import Flaw, check
from mesh.core.suggest import nearest
from mesh.core.topology import Topology

REJECTED_TYPE = "mesh.request.rejected"


class Rejected(NamedTuple):
    """A request that opens no run. `run_id` is set where somebody may be waiting for an answer under it."""

    code: str
    message: str
    run_id: str = ""


class Request(NamedTuple):
    """A request as its sender put it; None and "" stand for not given."""

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


def admit(record: Record, topology: Topology) -> Event | Rejected:
    """The event in a record of an ingress topic."""
    if record.value is None:
        return Rejected("empty_value", "the record has no value; expected JSON or a CloudEvent")
    try:
        headers = {name: value.decode() for name, value in record.headers if value is not None}
    except UnicodeDecodeError as error:
        return Rejected("bad_header", f"a header is not UTF-8: {error.reason} at byte {error.start}")
    content_type = headers.get("content-type", "")
    if content_type.lower().startswith("application/cloudevents"):
        request = _structured(record, headers)
    elif "ce_specversion" in headers or "ce_id" in headers:
        request = _binary(record, headers)
    else:
        request = _plain(record, headers, topology)
    return (
        request if isinstance(request, Rejected) else open_request(request, topology, fallback_id=coordinates(record))
    )


def open_request(request: Request, topology: Topology, *, fallback_id: str) -> Event | Rejected:
    """The one gate that every request passes. `fallback_id` names it where neither sender nor topic does."""
    rule = topology.ingress.get(request.type)
    if rule is None:
        return Rejected("unknown_type", _unknown_type(request.type, topology))
    limit = topology.limits.payload_bytes_max
    if len(request.data) > limit:
        return Rejected("too_large", f"the payload has {len(request.data)} bytes; at most {limit}")
    value: Any = None
    if is_json(request.content_type):
        value = check(request.data)
        if isinstance(value, Flaw):
            return Rejected(value.code, value.message)
    id = request.id
    if id is None and rule.id is not None:
        found = parse_path(rule.id).value(value)
        if found is None:
            return Rejected(
                "bad_id", f"the payload has no {rule.id!r}, which topic {rule.name} declares as the event's id"
            )
        id = str(found)
    elif id is None:
        id = fallback_id
    if not ID_PATTERN.fullmatch(id):
        return Rejected("bad_id", f"event id {id[:64]!r} has {len(id)} characters; expected {ID_PATTERN.pattern}")
    source = request.source or f"/topics/{rule.name}"
    run_id = run_id_of(source, id) if request.run_id is None else request.run_id
    if not ID_PATTERN.fullmatch(run_id):
        text = f"correlation id {run_id[:64]!r} has {len(run_id)} characters; expected {ID_PATTERN.pattern}"
        return Rejected("bad_id", text)
    try:
        expiry_ms = None if request.expiry is None else parse_time(request.expiry)
    except (ValueError, OverflowError) as error:
        return Rejected("bad_deadline", f"expirytime {request.expiry!r} is no RFC 3339 time: {error}", run_id)
    return Event(
        id,
        source,
        request.type,
        REQUESTED,
        run_id,
        request.data,
        cause_id=request.cause_id,
        content_type=request.content_type,
        time=request.time,
        subject=request.subject or id,
        expiry_ms=expiry_ms,
        traceparent=request.traceparent,
        tracestate=request.tracestate,
        origin=request.origin,
    )


def _plain(record: Record, headers: Mapping[str, str], topology: Topology) -> Request | Rejected:
    rule = topology.topics.get(record.topic)
    if rule is None or rule.ingress is None:
        return Rejected("unknown_type", f"topic {record.topic} declares no ingress type for records that bring none")
    return Request(
        rule.ingress,
        record.value or b"",
        run_id=headers.get("ce_correlationid"),
        content_type=headers.get("content-type", JSON),
        traceparent=headers.get("traceparent", ""),
        tracestate=headers.get("tracestate", ""),
        origin=coordinates(record),
    )


def _binary(record: Record, headers: Mapping[str, str]) -> Request | Rejected:
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce_")}
    return _attributes(record, attributes, record.value or b"", headers.get("content-type", JSON), headers)


def _structured(record: Record, headers: Mapping[str, str]) -> Request | Rejected:
    content_type = headers["content-type"].partition(";")[0].strip().lower()
    if content_type != "application/cloudevents+json":
        return Rejected(
            "unparseable", f"content type {content_type!r}; structured mode is read as application/cloudevents+json"
        )
    document = check(record.value or b"")
    if isinstance(document, Flaw):
        return Rejected(document.code, document.message)
    if not isinstance(document, dict):
        return Rejected("unparseable", f"a structured CloudEvent is a JSON object, got {type(document).__name__}")
    attributes = {k: v for k, v in document.items() if isinstance(v, str) and k not in ("data", "data_base64")}
    inner = str(document.get("datacontenttype") or JSON)
    if "data_base64" in document:
        try:
            data = base64.b64decode(document["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            return Rejected("unparseable", f"data_base64 is no base64: {error}")
    elif is_json(inner):
        data = orjson.dumps(document.get("data"))
    else:
        data = str(document.get("data", "")).encode()
    return _attributes(record, attributes, data, inner, headers)


def _attributes(
    record: Record, attributes: Mapping[str, str], data: bytes, content_type: str, headers: Mapping[str, str]
) -> Request | Rejected:
    if attributes.get("specversion") != "1.0":
        return Rejected("not_cloudevents", f"specversion is {attributes.get('specversion')!r}; expected '1.0'")
    missing = [name for name in ("id", "source", "type") if not attributes.get(name)]
    if missing:
        code = "bad_id" if missing[0] == "id" else "missing_header"
        return Rejected(code, f"CloudEvents attribute {missing[0]!r} is missing or empty")
    return Request(
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
        headers.get("traceparent", attributes.get("traceparent", "")),
        headers.get("tracestate", attributes.get("tracestate", "")),
        coordinates(record),
    )


def _unknown_type(type: str, topology: Topology) -> str:
    known = sorted(topology.ingress)
    guess = nearest(type, known)
    hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(known)}"
    return f"no ingress topic declares type {type[:64]!r}; {hint}"
