"""Events and records that several tests begin with."""

import string

from hypothesis import strategies as st

from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import (
    BATCH,
    INBOX_KINDS,
    NO_USAGE,
    RETRY_AFTER_MS_MAX,
    TASK,
    Event,
    Fault,
    Usage,
    rfc3339,
)
from mesh.core.protocol.record import Headers, StoredRecord

AT_MS = 1_795_176_000_123

IDS = st.text(string.ascii_letters + string.digits + "._:-", min_size=1, max_size=40)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
NAMES = st.text(string.ascii_lowercase + "_", min_size=1, max_size=10)
TIMES = st.integers(0, 253_402_300_799_999)
FAULTS = st.builds(Fault, IDS, TEXTS, TEXTS, st.booleans(), TEXTS, st.integers(0, RETRY_AFTER_MS_MAX))
USAGES = st.builds(Usage, st.integers(0, 10**15 - 1), st.integers(0, 10**15 - 1))


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Any event that the mesh may write."""
    event = Event(
        draw(IDS),
        draw(TEXTS),
        draw(TEXTS),
        draw(st.sampled_from(sorted(INBOX_KINDS | {TASK}))),
        draw(IDS),
        draw(st.binary(max_size=30)),
        draw(TIMES),
        draw(st.just("") | IDS),
        content_type=draw(st.sampled_from(["application/json", BATCH, "application/x+json; charset=utf-8"])),
        time=rfc3339(draw(TIMES)),
        subject=draw(st.just("") | TEXTS),
        expiry_ms=draw(st.none() | TIMES),
        usage=draw(st.none() | st.just(NO_USAGE) | USAGES),
        fault=draw(st.none() | FAULTS),
        origin=draw(IDS),
        extensions=draw(st.sampled_from([(), ("dataschema", "urn:s", "tenant", "eu")])),
    )
    if draw(st.booleans()):
        event.task_id = draw(IDS)
        event.agent = draw(NAMES)
        event.depth = draw(st.integers(0, 99))
        event.path = tuple(draw(st.lists(NAMES, max_size=4)))
        event.attempt = draw(st.integers(1, 99))
    if draw(st.booleans()):
        event.traceparent = draw(IDS)
        event.tracestate = draw(st.just("") | IDS)
    return event


def stored(headers: Headers, value: bytes | None = b"{}", timestamp: int = AT_MS) -> StoredRecord:
    return StoredRecord("mesh.inbox", 2, 7, timestamp, b"r1", value, headers)


def task() -> Event:
    return Event(
        "t1:1",
        "/mesh/desk",
        "order.placed",
        TASK,
        "r1",
        b'{"order_id":"o-1"}',
        AT_MS,
        "e1",
        "pricing",
        "t1",
        2,
        ("intake", "pricing"),
        subject="o-1",
        expiry_ms=AT_MS + 60_000,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        tracestate="a=b",
    )


def again(event: Event) -> Event:
    """Write an event and read it again."""
    found = read_event(StoredRecord("mesh.inbox", 0, 0, event.at_ms, b"r1", event.data, event_headers(event)))
    assert isinstance(found, Event)
    return found
