"""The CloudEvents SDK as oracle: it reads what the mesh writes, and the mesh reads what it writes, in both modes."""

from datetime import UTC, datetime
from typing import Any

import orjson
from cloudevents.core.bindings.kafka import (
    KafkaMessage,
    from_binary_event,
    from_structured_event,
    to_binary_event,
    to_structured_event,
)
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given

from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import Event
from tests.core.samples import AT_MS, events, stored, task


@given(events())
def test_the_sdk_reads_what_the_mesh_writes(event: Event) -> None:
    event.data = orjson.dumps({"id": event.id})
    event.content_type = "application/json"
    found = from_binary_event(KafkaMessage(dict(event_headers(event)), event.run_id.encode(), event.data))
    assert found.get_id() == event.id
    assert found.get_source() == event.source
    assert found.get_type() == event.type
    assert found.get_specversion() == "1.0"
    assert found.get_time() == datetime.fromisoformat(event.time)
    assert found.get_subject() == (event.subject or None)
    assert found.get_datacontenttype() == event.content_type
    assert found.get_data() == {"id": event.id}
    assert found.get_extension("correlationid") == event.run_id
    assert found.get_extension("causationid") == (event.cause_id or None)
    assert found.get_extension("meshkind") == event.kind


def attributes(**more: Any) -> dict[str, Any]:
    return {
        "id": "e-1",
        "source": "/agents/pricing",
        "type": "order.priced",
        "time": datetime(2026, 11, 20, 12, tzinfo=UTC),
        "datacontenttype": "application/json",
        "subject": "o-1",
        "correlationid": "r1",
        "causationid": "t1:1",
        "meshkind": "succeeded",
        "meshagent": "pricing",
        "meshtask": "t1",
        "meshdepth": "1",
        "meshpath": "pricing",
        "expirytime": "2026-11-20T13:00:00Z",
        **more,
    }


def expected() -> Event:
    return Event(
        "e-1",
        "/agents/pricing",
        "order.priced",
        "succeeded",
        "r1",
        b'{"total":5}',
        AT_MS,
        "t1:1",
        "pricing",
        "t1",
        1,
        ("pricing",),
        time="2026-11-20T12:00:00Z",
        subject="o-1",
        expiry_ms=1_795_179_600_000,
        origin="mesh.inbox:2:7",
    )


def test_what_the_sdk_writes_in_binary_mode_is_read() -> None:
    message = to_binary_event(CloudEvent(attributes(), {"total": 5}))
    found = read_event(stored(list(message.headers.items()), message.value))
    assert isinstance(found, Event)
    assert orjson.loads(found.data) == {"total": 5}
    found.data = b'{"total":5}'
    assert found == expected()


def test_what_the_sdk_writes_in_structured_mode_is_read() -> None:
    message = to_structured_event(CloudEvent(attributes(), {"total": 5}))
    assert read_event(stored(list(message.headers.items()), message.value)) == expected()


def test_the_content_type_of_a_structured_event_is_that_of_its_data() -> None:
    message = to_structured_event(CloudEvent(attributes(datacontenttype="application/vnd.x+json"), {"total": 5}))
    found = read_event(stored(list(message.headers.items()), message.value))
    assert isinstance(found, Event)
    assert found.content_type == "application/vnd.x+json"


def test_both_modes_of_the_sdk_say_the_same_of_what_the_mesh_wrote() -> None:
    """Binary from the mesh → the SDK → structured → the mesh: the same event."""
    event = task()
    event.traceparent = event.tracestate = ""  # plain headers, which the SDK does not carry on
    message = to_structured_event(from_binary_event(KafkaMessage(dict(event_headers(event)), None, event.data)))
    assert from_structured_event(message).get_extension("meshtask") == "t1"
    found = read_event(stored(list(message.headers.items()), message.value))
    assert isinstance(found, Event)
    found.time = ""
    event.origin = "mesh.inbox:2:7"
    assert found == event
