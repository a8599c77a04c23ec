"""The one gate for requests: records of ingress topics → `requested` events, or rejections with a reason.

The gate accepts plain JSON (its type is that of the ingress topic) and CloudEvents in binary and in structured mode.
The id of the event is the first of: the CloudEvent's id, the payload field that the topic declares, the record's
coordinates. The run id is derived from (topic, source, id), so a request sent twice is one run. Mesh headers
(`ce_mesh…`) of foreign producers are ignored.

The right to write to an ingress topic is the right to send events of its type, and no other right. A record of another
topic's type is rejected. So is a source that only the mesh itself uses, and a correlation id, unless the topic has
`join: true`. A client that writes to the inbox itself (`Mesh.publish`) may join any run.

On a topic with `order: key`, the id of the run contains its home, which is derived from the ordering key. That is the
payload field that the topic declares as `key`, else the key of the record. A request without either has no order.

No function here raises, whatever the bytes, headers or texts are.
"""

import re
from functools import lru_cache
from typing import Any, Final

from mesh.core.expression.field_path import Path, parse_path
from mesh.core.ingress.request_formats import TEXT_CHARS_MAX, Rejection, Request, request_of
from mesh.core.ingress.trace_context import trace_of
from mesh.core.protocol.codec import is_json
from mesh.core.protocol.event import BATCH, ID_PATTERN, JSON, REQUESTED, Event, run_id_of
from mesh.core.protocol.json_check import Flaw, parse_strict
from mesh.core.protocol.partitioner import key_of
from mesh.core.protocol.record import Record, coordinates
from mesh.core.protocol.timestamps import parse_time
from mesh.core.suggest import nearest
from mesh.core.topology.model import TopicRule, Topology

REJECTED_TYPE = "mesh.request.rejected"
EXTENSIONS_MAX: Final = 64
EXTENSIONS_BYTES_MAX: Final = 4_096
"""Limit for the names and values of extension attributes together: every run keeps those of its request."""
TYPES_SHOWN_MAX: Final = 8

_OWN_SOURCES: Final = ("/topics/", "/agents/", "/mesh/", "/runs/")
"""Prefixes of the sources that only the mesh itself uses."""
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that CloudEvents forbids in a text, and marks that change the direction of displayed text."""


def admit(record: Record, topology: Topology) -> Event | Rejection:
    """Return the event in a record of an ingress topic, or its rejection."""
    request = request_of(record, topology)
    if isinstance(request, Rejection):
        return request
    return open_request(request, topology, fallback_id=coordinates(record))


def open_request(request: Request, topology: Topology, *, fallback_id: str) -> Event | Rejection:
    """Admit a request, or reject it. Every request passes here.

    `fallback_id`: the event's id where neither sender nor topic gives one.
    """
    entry = topology.topics.get(request.topic)
    rejected = _form_flaw(request, topology) or (None if entry is None else _rights_flaw(request, entry, topology))
    if rejected is not None:
        return Rejection(*rejected, _known_run(request, entry, topology))
    rule = topology.ingress[request.type]
    value = parse_strict(request.data)
    id = value if isinstance(value, Flaw) else _event_id(request, rule, value, fallback_id)
    if isinstance(id, Flaw):
        return Rejection(*id, _known_run(request, entry, topology))
    source = request.source or f"/topics/{rule.name}"
    run_id = _run_of(source, id, entry, _ordering_key(request, rule, value))
    if request.run_id is not None and request.run_id != run_id:
        if entry is not None and not entry.join:
            text = f"ce_correlationid names run {request.run_id!r}, and topic {entry.name} does not say `join: true`"
            return Rejection("foreign_run", text, run_id)
        run_id = request.run_id
    try:
        expiry_ms = (
            None if request.expiry is None else max(0, parse_time(request.expiry))
        )  # times before 1970 count as 1970
    except ValueError as error:
        return Rejection("bad_deadline", f"expirytime: {error}", run_id)
    traceparent, tracestate = request.traceparent, request.tracestate
    if traceparent and entry is None:  # not validated yet
        traceparent, tracestate = trace_of([traceparent], [tracestate])
    return Event(
        id=id,
        source=source,
        type=request.type,
        kind=REQUESTED,
        run_id=run_id,
        data=request.data,
        cause_id=request.cause_id,
        content_type=request.content_type,
        time=request.time,
        subject=request.subject or id,
        expiry_ms=expiry_ms,
        traceparent=traceparent,
        tracestate=tracestate,
        origin=request.origin,
        topology=topology.digest,
        extensions=request.extensions,
    )


def find_flaw(event: Event) -> Flaw | None:
    """Return what the gate would reject in a request that a client wrote to the inbox itself. Ignores the payload."""
    texts = f"{event.id}{event.source}{event.subject}"
    rest = f"{event.type}{event.cause_id}{event.origin}{event.time}{event.traceparent}{event.tracestate}"
    short = len(texts) + len(rest) <= TEXT_CHARS_MAX
    if short and event.content_type == JSON and not event.extensions and event.id and texts.isprintable():
        return None  # the fast path for nearly all requests
    flaw = _id_flaw("event id", event.id) or _text_flaw("source", event.source) or _text_flaw("subject", event.subject)
    if flaw is None and event.content_type not in (JSON, BATCH) and not is_json(event.content_type):
        return _no_json(event.content_type)
    return flaw or _length_flaw(event) or _extensions_flaw(event.extensions)


def _length_flaw(event: Event) -> Flaw | None:
    """Return the flaw of another attribute that is too long: every record of the run would repeat it."""
    texts = (event.type, event.content_type, event.time, event.cause_id, event.origin)
    for text in (*texts, event.traceparent, event.tracestate):
        if len(text) > TEXT_CHARS_MAX:
            found = f"attribute {text[:32]!r}… has {len(text)} characters; at most {TEXT_CHARS_MAX}"
            return Flaw("too_large", found)
    return None


def _form_flaw(request: Request, topology: Topology) -> Flaw | None:
    """Return the flaw of a request that shows without parsing its payload."""
    if request.type not in topology.ingress:
        return Flaw("unknown_type", _unknown_type(request.type, topology))
    if request.run_id is not None and not ID_PATTERN.fullmatch(request.run_id):
        return _bad_id("correlation id", request.run_id)
    flaw = _id_flaw("causation id", request.cause_id) if request.cause_id else None
    flaw = flaw or _extensions_flaw(request.extensions)
    if flaw is not None:
        return flaw
    texts = request.source + request.subject
    if request.content_type != JSON or len(texts) > TEXT_CHARS_MAX or not texts.isprintable():
        flaw = _text_flaw("source", request.source) or _text_flaw("subject", request.subject)
        flaw = flaw or _text_flaw("content type", request.content_type)
        if flaw is not None or not is_json(request.content_type):
            return flaw or _no_json(request.content_type)
    if request.time:
        flaw = _text_flaw("time", request.time)
        if flaw is not None:
            return flaw
        try:
            parse_time(request.time)
        except ValueError as error:
            return Flaw("bad_time", f"time: {error}")
    limit = topology.limits.payload_bytes_max
    if len(request.data) > limit:
        return Flaw("too_large", f"the payload has {len(request.data)} bytes; at most {limit}")
    return None


def _event_id(request: Request, rule: TopicRule, value: Any, fallback_id: str) -> str | Flaw:
    """Return the event's id: the given one, the payload field that the topic declares, or the fallback."""
    id = request.id
    if id is None and rule.id is not None:
        found = _path(rule.id).value(value)
        if isinstance(found, bool) or not isinstance(found, str | int):
            what = "nothing" if found is None else f"a {type(found).__name__}"
            text = f"the payload has {what} at {rule.id!r}, where topic {rule.name} declares the event's id"
            return Flaw("bad_id", text)
        id = str(found)
    elif id is None:
        id = fallback_id
    flaw = _id_flaw("event id", id)
    return flaw or id


def _id_flaw(name: str, id: str) -> Flaw | None:
    """Return the flaw of an id that a sender gave. CloudEvents allows every text that is not empty."""
    if ID_PATTERN.fullmatch(id):
        return None
    if not id:
        return Flaw("bad_id", f"{name} is empty")
    if len(id) > TEXT_CHARS_MAX:
        return Flaw("bad_id", f"{name} {id[:64]!r} has {len(id)} characters; at most {TEXT_CHARS_MAX}")
    flaw = _text_flaw(name, id)
    return None if flaw is None else Flaw("bad_id", flaw.message)


def _extensions_flaw(extensions: tuple[str, ...]) -> Flaw | None:
    if not extensions:
        return None
    size = sum(len(text.encode("utf-8", "replace")) for text in extensions)
    if len(extensions) > 2 * EXTENSIONS_MAX or size > EXTENSIONS_BYTES_MAX:
        text = f"{len(extensions) // 2} extension attributes of {size} bytes"
        return Flaw("too_large", f"{text}; at most {EXTENSIONS_MAX} of {EXTENSIONS_BYTES_MAX}")
    flaws = (
        _text_flaw(f"attribute {name!r}", text) for name, text in zip(extensions[::2], extensions[1::2], strict=True)
    )
    return next(filter(None, flaws), None)


def _text_flaw(name: str, text: str) -> Flaw | None:
    if len(text) > TEXT_CHARS_MAX:
        return Flaw("too_large", f"{name} has {len(text)} characters; at most {TEXT_CHARS_MAX}")
    found = None if text.isprintable() else _NO_TEXT.search(text)
    if found is None:
        return None
    point = f"U+{ord(found[0]):04X}"
    return Flaw("bad_string", f"{name} holds {point} at character {found.start()}; expected plain text")


def _no_json(content_type: str) -> Flaw:
    return Flaw("unparseable", f"content type {content_type[:64]!r} is not JSON, which agents take")


def _ordering_key(request: Request, rule: TopicRule, value: Any) -> bytes | None:
    """Return the ordering key of a request; None: it has no order. `value` is its payload."""
    if not rule.ordered or rule.key is None:
        return request.key if rule.ordered else None
    return key_of(_path(rule.key).value(value))


@lru_cache(maxsize=256)
def _path(text: str) -> Path:
    """Parse a declared field path, once."""
    return parse_path(text)


def _bad_id(name: str, id: str) -> Flaw:
    return Flaw("bad_id", f"{name} {id[:64]!r} has {len(id)} characters; expected {ID_PATTERN.pattern}")


def _rights_flaw(request: Request, entry: TopicRule, topology: Topology) -> Flaw | None:
    """Return the flaw of a request that the right to write to this ingress topic does not cover."""
    if request.type != entry.ingress:
        home = topology.ingress[request.type].name
        text = f"type {request.type!r} comes in by topic {home}, not by {entry.name}, which takes {entry.ingress!r}"
        return Flaw("wrong_topic", text)
    if is_forged(request.source, entry):
        text = f"source {request.source[:64]!r} is one that only the mesh itself uses; send the URI of your own system"
        return Flaw("forged_source", text)
    return None


def is_forged(source: str, entry: TopicRule) -> bool:
    """Return whether a sender claims a source of the mesh itself.

    Events of another mesh's agents are allowed where a topic has `join: true`.
    """
    if not source.startswith(_OWN_SOURCES) or source == f"/topics/{entry.name}":
        return False
    return not (entry.join and source.startswith("/agents/"))


def _run_of(source: str, id: str, entry: TopicRule | None, ordering_key: bytes | None) -> str:
    """Return the run that a request opens.

    Its id is derived from the topic, too. A sender chooses its source freely, but may write to certain topics only. So
    claiming another system's source on another topic gives no access to that system's runs.
    """
    return run_id_of(source if entry is None else _space(entry.name, source), id, ordering_key)


@lru_cache(maxsize=1_024)
def _space(topic: str, source: str) -> str:
    own = f"/topics/{topic}"
    return source if source == own else f"{own}\0{source}"


def _known_run(request: Request, entry: TopicRule | None, topology: Topology) -> str:
    """Return the run under which the sender of a rejected request may wait; "" when it is unknown."""
    if request.run_id is not None and (entry is None or entry.join):
        return request.run_id if ID_PATTERN.fullmatch(request.run_id) else ""
    if request.id is None or not request.source or _id_flaw("event id", request.id):
        return ""
    rule = topology.ingress.get(request.type)
    ordered = rule is not None and rule.ordered
    if _NO_TEXT.search(request.source) or (ordered and rule is not None and rule.key is not None):
        return ""  # it depends on the payload
    return _run_of(request.source, request.id, entry, request.key if ordered else None)


def _unknown_type(type: str, topology: Topology) -> str:
    known = sorted(topology.ingress)
    guess = nearest(type, known)
    more = f" and {len(known) - TYPES_SHOWN_MAX} more" if len(known) > TYPES_SHOWN_MAX else ""
    hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(known[:TYPES_SHOWN_MAX]) or 'none'}{more}"
    return f"no ingress topic declares type {type[:64]!r}; {hint}"
