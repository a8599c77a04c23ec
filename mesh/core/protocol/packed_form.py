"""The packed form of an event: all control data in one header, a JSON array. For mesh.inbox and the topics of tasks.

    mesh-event: [1,"t1:1","/mesh/desk","order.placed","task","r1", …]

One header costs its writer, the broker and its reader a third of what a dozen costs. The plain form (`codec`) says the
same in a header for each attribute. It is what enters and leaves the mesh, and readers take it everywhere.
"""

from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.protocol.event import (
    FAULT_TEXT_BYTES_MAX,
    JSON,
    KINDS,
    LIFETIME_DIGITS_MAX,
    NO_USAGE,
    STACK_BYTES_MAX,
    TIME_MS_MAX,
    Event,
    Fault,
    read_duration,
    read_usage,
    rfc3339,
)

PACKED: Final = "mesh-event"
VERSION: Final = 1
TEXT: Final = "text"
NUMBER: Final = "whole number"
SWITCH: Final = "true or false"
TEXTS: Final = "array of texts"
FAULT: Final = "array (see below)"
NULL: Final = " or null"


class HeaderItem(NamedTuple):
    """One item of an array. `absent`: its value where there is nothing to say, as JSON; "" if it is never absent."""

    name: str
    type: str
    absent: str
    meaning: str


ITEMS: Final[tuple[HeaderItem, ...]] = (
    HeaderItem("version", NUMBER, "", f"{VERSION}; another number means another list of items"),
    HeaderItem("id", TEXT, "", "`ce_id`"),
    HeaderItem("source", TEXT, "", "`ce_source`"),
    HeaderItem("type", TEXT, "", "`ce_type`"),
    HeaderItem("kind", TEXT, "", "`ce_meshkind`"),
    HeaderItem("run", TEXT, "", "`ce_correlationid`"),
    HeaderItem("cause", TEXT, '""', "`ce_causationid`"),
    HeaderItem("agent", TEXT, '""', "`ce_meshagent`"),
    HeaderItem("task", TEXT, '""', "`ce_meshtask`"),
    HeaderItem("depth", NUMBER, "0", "`ce_meshdepth`"),
    HeaderItem("path", TEXT, '""', "`ce_meshpath`"),
    HeaderItem("attempt", NUMBER, "1", "`mesh-attempt`"),
    HeaderItem("content type", TEXT + NULL, "null", f"`content-type`; null: `{JSON}`"),
    HeaderItem("time", TEXT, '""', "`ce_time`"),
    HeaderItem("subject", TEXT, '""', "`ce_subject`"),
    HeaderItem("expiry", NUMBER + NULL, "null", "`ce_expirytime` in ms since 1970; negative: minus `mesh-lifetime-ms`"),
    HeaderItem("traceparent", TEXT, '""', "`traceparent`"),
    HeaderItem("tracestate", TEXT, '""', "`tracestate`"),
    HeaderItem("usd", NUMBER + NULL, "0", "`ce_meshusd`; null: the agent reported an invalid usage"),
    HeaderItem("tokens", NUMBER, "0", "`ce_meshtokens`"),
    HeaderItem("failure", FAULT + NULL, "null", "`mesh-error-…`"),
    HeaderItem("origin", TEXT, '""', "`mesh-origin`"),
    HeaderItem("topology", TEXT, '""', "`ce_meshtopology`"),
    HeaderItem("extensions", TEXTS, "[]", "`mesh-extensions`: name, value, name, value, …"),
    HeaderItem("waited", NUMBER, "0", "`mesh-waited-ms`"),
)
"""The items of the header, in order. A change of them is another version."""
FAULT_ITEMS: Final[tuple[HeaderItem, ...]] = (
    HeaderItem("code", TEXT, "", "`mesh-error-code`"),
    HeaderItem("message", TEXT, '""', "`mesh-error-message`"),
    HeaderItem("class", TEXT, '""', "`mesh-error-class`"),
    HeaderItem("retryable", SWITCH, "", "`mesh-error-retryable`"),
    HeaderItem("stack", TEXT, '""', "`mesh-error-stack`"),
    HeaderItem("retry after", NUMBER, "0", "`mesh-error-retry-after-ms`"),
)
"""The items of a failure, in order."""
_CLASSES: Final[dict[str, tuple[type, ...]]] = {
    TEXT: (str,),
    NUMBER: (int,),
    SWITCH: (bool,),
    TEXTS: (list,),
    TEXT + NULL: (str, type(None)),
    NUMBER + NULL: (int, type(None)),
    FAULT + NULL: (list, type(None)),
}
_KIND_TEXTS: Final = {kind: kind for kind in KINDS}
"""The one string of each kind that all events share."""
_LIFETIME_MS_MAX: Final = 10**LIFETIME_DIGITS_MAX - 1
_SHOWN_CHARS_MAX: Final = 64
_loads, _dumps, _join = orjson.loads, orjson.dumps, "".join


class LaterVersion(ValueError):
    """An error: the header was written by a version of the mesh that this one does not know."""


def pack(event: Event) -> bytes:
    """Return the header of an event. Raises TypeError for what JSON cannot carry: lone surrogates, numbers beyond 64
    bits. The plain form carries them."""
    usage, fault, expiry_ms = event.usage, event.fault, event.expiry_ms
    has_task = event.task_id != ""
    return _dumps(
        (
            VERSION,
            event.id,
            event.source,
            event.type,
            event.kind,
            event.run_id,
            event.cause_id,
            event.agent if has_task else "",
            event.task_id,
            event.depth if has_task else 0,
            ",".join(event.path) if has_task else "",
            event.attempt if has_task else 1,
            None if event.content_type == JSON else event.content_type,
            event.time or rfc3339(event.at_ms),
            event.subject,
            expiry_ms if expiry_ms is None or expiry_ms < TIME_MS_MAX else TIME_MS_MAX,
            event.traceparent,
            event.tracestate if event.traceparent else "",
            0 if usage is NO_USAGE else None if usage is None else usage.usd_micros,
            0 if usage is NO_USAGE or usage is None else usage.tokens,
            None if fault is None else (*fault,),
            event.origin,
            event.topology,
            event.extensions,
            event.waited_ms,
        )
    )


def unpack(packed: bytes, value: bytes, at_ms: int) -> Event:
    """Return the event that a header and a value hold. `at_ms`: when the log stored it.

    Deadline and origin are as written: a lifetime is negative, an absent origin is "". Raises LaterVersion, and
    ValueError with a sentence if the header is not as `ITEMS` says.
    """
    found = _loads(packed)
    try:
        version, id, source, type, kind, run_id, cause, agent, task, depth, path, attempt, media, time, *more = found
        subject, expiry_ms, traceparent, tracestate, usd, tokens, fault, origin, topology, extensions, waited_ms = more
        _join((id, source, type, kind, run_id, cause, agent, task, path, time, subject, traceparent, tracestate))
        _join((origin, topology, "" if media is None else media))
    except (TypeError, ValueError):
        raise _flaw(found) from None
    if (
        not version.__class__ is depth.__class__ is attempt.__class__ is tokens.__class__ is waited_ms.__class__ is int
        or found.__class__ is not list
        or version != VERSION
        or extensions.__class__ is not list
        or not (fault is None or fault.__class__ is list)
        or not (usd is None or usd.__class__ is int)
        or not (expiry_ms is None or expiry_ms.__class__ is int)
    ):
        raise _flaw(found)
    if expiry_ms is not None and not -_LIFETIME_MS_MAX <= expiry_ms <= TIME_MS_MAX:
        raise ValueError(f"expiry is {expiry_ms}, expected {-_LIFETIME_MS_MAX} to {TIME_MS_MAX}")
    return Event(  # positional, as in `codec`
        id,
        source,
        type,
        _KIND_TEXTS.get(kind, kind),
        run_id,
        value,
        at_ms,
        cause,
        agent,
        task,
        depth,
        split_path(path),
        attempt,
        JSON if media is None else media,
        time,
        subject,
        expiry_ms,
        traceparent,
        tracestate,
        NO_USAGE if usd == tokens == 0 else None if usd is None else read_usage(usd, tokens),
        None if fault is None else _fault(fault),
        origin,
        topology,
        _extensions(extensions) if extensions else (),
        read_duration(waited_ms) if waited_ms else 0,
    )


@lru_cache(maxsize=4_096)  # runs share few paths
def split_path(text: str) -> tuple[str, ...]:
    """Return the agents of a path that is separated by commas."""
    return tuple(text.split(",")) if text else ()


def _fault(found: list[Any]) -> Fault:
    wrong = _wrong(found, FAULT_ITEMS)
    if wrong:
        raise ValueError(f"failure: {wrong}")
    code, message, cls, retryable, stack, retry_after_ms = found
    return Fault(
        _cut(code, FAULT_TEXT_BYTES_MAX),
        _cut(message, FAULT_TEXT_BYTES_MAX),
        _cut(cls, FAULT_TEXT_BYTES_MAX),
        retryable,
        _cut(stack, STACK_BYTES_MAX),
        read_duration(retry_after_ms),
    )


def _cut(text: str, bytes_max: int) -> str:
    return text if 4 * len(text) <= bytes_max else text.encode()[:bytes_max].decode("utf-8", "replace")


def _extensions(found: list[Any]) -> tuple[str, ...]:
    names = found[::2]
    if not all(isinstance(text, str) for text in found) or len(found) % 2:
        raise ValueError("extensions: expected names and values in turns")
    if len(set(names)) < len(names) or not all(names) or any("," in name for name in names):
        raise ValueError("extensions: expected different names without commas")
    return tuple(found)


def _flaw(found: Any) -> ValueError:
    """Return what is wrong with a header that is JSON."""
    if not isinstance(found, list):
        return ValueError(f"it is {_shown(found)}, expected an array")
    version = found[0] if found else None
    if version.__class__ is int and version > VERSION:
        return LaterVersion(f"it has version {version}, this process knows {VERSION}")
    if version.__class__ is int and version < VERSION:
        return ValueError(f"it has version {version}, expected {VERSION}")
    return ValueError(_wrong(found, ITEMS))


def _wrong(found: list[Any], items: tuple[HeaderItem, ...]) -> str:
    """Return how an array differs from its items; "" if it does not."""
    if len(found) != len(items):
        return f"it has {len(found)} items, expected {len(items)}"
    for number, (value, item) in enumerate(zip(found, items, strict=True), start=1):
        if value.__class__ not in _CLASSES[item.type]:
            return f"item {number} ({item.name}) is {_shown(value)}, expected {item.type}"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    text = _dumps(value).decode() if value is None or isinstance(value, bool) else ascii(value)
    return text if len(text) <= _SHOWN_CHARS_MAX else f"{text[: _SHOWN_CHARS_MAX - 1]}…"
