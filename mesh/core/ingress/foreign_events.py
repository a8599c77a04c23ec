"""Records of any topic → events, for readers who look at a log: also those that other senders wrote.

| record | read as |
|---|---|
| of the mesh's own | its event |
| of an ingress topic | the request that the intake makes of it, with its run |
| a CloudEvent in any other topic, or one that the intake rejects | its attributes; its run is its `correlationid` |

Events of other senders have the kind `foreign`. Plain JSON is an event on ingress topics alone, which name its type.
"""

from typing import Final

from mesh.core.ingress.admission import admit
from mesh.core.ingress.request_formats import Rejection, Request, request_of
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import FOREIGN, Event
from mesh.core.protocol.packed_form import PACKED
from mesh.core.protocol.record import Record
from mesh.core.protocol.timestamps import parse_time
from mesh.core.topology.model import Topology

_OWN: Final = frozenset({PACKED, "ce_meshkind"})
"""A record with one of these headers was meant as an event of a mesh."""


def event_in(record: Record, topology: Topology) -> Event | Unreadable:
    """Return the event in a record of any topic. Never raises."""
    rule = topology.topics.get(record.topic)
    is_entry = rule is not None and rule.ingress is not None
    if is_entry:
        admitted = admit(record, topology)
        if isinstance(admitted, Event):
            admitted.kind, admitted.at_ms, admitted.topology = FOREIGN, record.timestamp, ""
            return admitted
    found = read_event(record)
    if isinstance(found, Event) or not _OWN.isdisjoint(name for name, _ in record.headers):
        return found
    request = request_of(record, topology)
    if isinstance(request, Request) and request.id is not None and request.source:
        return _cloud_event(request, request.id, record.timestamp)
    if is_entry and isinstance(admitted, Rejection):
        return Unreadable(admitted.code, admitted.message)
    if isinstance(request, Rejection) and request.code != "unknown_type":
        return Unreadable(request.code, request.message)
    return found if _has_attributes(record) else Unreadable("not_cloudevents", "the record has no CloudEvents headers")


def _has_attributes(record: Record) -> bool:
    return any(name.lower().startswith("ce_") for name, _ in record.headers)


def _cloud_event(request: Request, id: str, at_ms: int) -> Event:
    return Event(
        id,
        request.source,
        request.type,
        FOREIGN,
        request.run_id or "",
        request.data,
        at_ms,
        request.cause_id,
        content_type=request.content_type,
        time=request.time,
        subject=request.subject,
        expiry_ms=_expiry(request.expiry),
        traceparent=request.traceparent,
        tracestate=request.tracestate,
        origin=request.origin,
        extensions=request.extensions,
    )


def _expiry(text: str | None) -> int | None:
    """Return a deadline in milliseconds. One that does not parse is none: the intake says so when it rejects it."""
    try:
        return None if text is None else max(0, parse_time(text))
    except ValueError:
        return None
