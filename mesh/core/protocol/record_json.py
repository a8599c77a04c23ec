"""A record as one JSON object: its event in the JSON format of CloudEvents 1.0, and its place in the log.

    {"specversion": "1.0", "id": …, "type": …, "data": …,
     "topic": "mesh.inbox", "partition": 2, "offset": 120, "logtime": "2026-11-20T12:00:00.123Z", "key": …}

`logtime` is the time at which the log stored the record; `time` is that of the event. Headers `mesh-…` are attributes
without the hyphens: `meshattempt`, `mesherrorcode`. Headers that the mesh does not know are in the object `headers`,
which is no attribute. A record that holds no event has `unreadable` with code and message. An event of another sender
has the attributes that it was sent with; those that an ingress topic adds (type, id, source, run) stand beside them.
"""

from base64 import b64encode
from functools import lru_cache
from typing import Any, Final

import orjson

from mesh.core.protocol.codec import Unreadable, event_headers, is_json, read_event
from mesh.core.protocol.event import BATCH, FOREIGN, Event, rfc3339
from mesh.core.protocol.headers import HEADERS
from mesh.core.protocol.packed_form import PACKED
from mesh.core.protocol.record import Headers, Record, coordinates

_ATTRIBUTE: Final = "ce_"
_CONTENT_TYPE: Final = "content-type"
_ORIGIN_ATTRIBUTE: Final = "meshorigin"
_INTEGERS: Final = frozenset({"meshdepth", "meshtokens", "meshattempt", "meshwaitedms"})
_KNOWN: Final = frozenset({PACKED, *(name for name, _ in HEADERS)})


def record_json(
    record: Record, event: Event | Unreadable | None = None, headers: Headers | None = None
) -> dict[str, Any]:
    """Return a record as values for orjson, one line when it is written. Bytes that are not text are in base64.

    `event`: what `read_event` or `event_in` made of it; `headers`: what `event_headers` made of that, if known.
    """
    event = read_event(record) if event is None else event
    place = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "logtime": rfc3339(record.timestamp),
        **bytes_json("key", record.key),
    }
    if isinstance(event, Unreadable):
        data = {} if record.value is None else _data(record.value, json=True)
        return {
            "unreadable": {"code": event.code, "message": event.message},
            **data,
            **place,
            **_others(record.headers),
        }
    if event.kind == FOREIGN:
        return {**_sent_attributes(event), **place, **_others(_foreign(record))}
    written = event_headers(event) if headers is None else headers
    return {**_attributes(record, event, written), **place, **_others(_foreign(record))}


def _sent_attributes(event: Event) -> dict[str, Any]:
    """Return what another sender gave its event: no attribute of a mesh, and none that is empty."""
    optional = {
        "time": event.time,
        "subject": event.subject,
        "correlationid": event.run_id,
        "causationid": event.cause_id,
        "expirytime": "" if event.expiry_ms is None else rfc3339(event.expiry_ms),
        "traceparent": event.traceparent,
        "tracestate": event.tracestate,
        **dict(zip(event.extensions[::2], event.extensions[1::2], strict=True)),
    }
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        **{name: text for name, text in optional.items() if text},
        "datacontenttype": event.content_type,
        **_data(event.data, json=is_json(event.content_type) or event.content_type == BATCH),
    }


def _attributes(record: Record, event: Event, headers: Headers) -> dict[str, Any]:
    here = coordinates(record)  # an event without an origin gets that of its record
    found: dict[str, Any] = {}
    for name, value in headers:
        if name == _CONTENT_TYPE:
            continue
        attribute, is_integer = _attribute_of(name)
        text = value.decode("utf-8", "replace")
        found[attribute] = int(text) if is_integer and text.isdigit() else text
    if found.get(_ORIGIN_ATTRIBUTE) == here:
        del found[_ORIGIN_ATTRIBUTE]
    found["datacontenttype"] = event.content_type
    return {**found, **_data(event.data, json=is_json(event.content_type) or event.content_type == BATCH)}


@lru_cache(maxsize=1_024)
def _attribute_of(header: str) -> tuple[str, bool]:
    """Return the name of a header's attribute, and whether it is a number."""
    name = header.removeprefix(_ATTRIBUTE).replace("-", "")
    return name, name in _INTEGERS


def _foreign(record: Record) -> Headers:
    """Return the headers that the mesh does not know and that are no attributes."""
    return [(n, value) for n, value in record.headers if n not in _KNOWN and not n.startswith(_ATTRIBUTE)]


def _others(headers: Headers) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in headers:
        found |= bytes_json(name, value)
    return {"headers": found} if found else {}


def bytes_json(name: str, value: bytes | None) -> dict[str, str | None]:
    """Return bytes as a field: UTF-8 as text, others in base64 as `…_base64`."""
    try:
        return {name: None if value is None else value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(value or b"").decode()}


def _data(data: bytes, *, json: bool) -> dict[str, Any]:
    """Return JSON as it stands, since numbers of many digits would change; other bytes in base64."""
    if json:
        try:
            orjson.loads(data)
        except orjson.JSONDecodeError:
            pass  # not JSON, whatever its content type says
        else:
            return {"data": orjson.Fragment(data.replace(b"\n", b" ").replace(b"\r", b" "))}
    return {"data_base64": b64encode(data).decode()}
