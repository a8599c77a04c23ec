"""A record as a CloudEvent in JSON with its place."""

from base64 import b64decode

import orjson
import pytest

from mesh.core.protocol.cloudevents_json import STRUCTURED, StructuredEvent, unwrap
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import FOREIGN, SUCCEEDED, Event
from mesh.core.protocol.record import StoredRecord
from mesh.core.protocol.record_json import record_json

EVENT = Event(
    "e1",
    "/agents/pricing",
    "order.priced",
    SUCCEEDED,
    "run-1",
    b'{"total": 12,\r\n "b": 1}',
    agent="pricing",
    task_id="t1",
    depth=2,
    path=("intake", "pricing"),
    subject="o-1",
    traceparent="00-1-2-01",
    origin="mesh.tasks.pricing:3:2",
)


def record(event: Event, **changes: object) -> StoredRecord:
    stored = StoredRecord("mesh.inbox", 2, 120, 1_795_176_000_123, b"run-1", event.data, event_headers(event))
    return stored._replace(**changes)  # type: ignore[arg-type]


def test_it_is_a_cloud_event_with_its_place() -> None:
    found = record_json(record(EVENT))
    line = orjson.dumps(found)
    assert not {b"\n", b"\r"} & {line[at : at + 1] for at in range(len(line))}
    read = unwrap(line, STRUCTURED)
    assert isinstance(read, StructuredEvent)
    assert (read.attributes["id"], read.attributes["type"], read.attributes["meshdepth"]) == ("e1", "order.priced", "2")
    assert read.attributes["meshpath"] == "intake,pricing"
    assert (found["topic"], found["partition"], found["offset"], found["key"]) == ("mesh.inbox", 2, 120, "run-1")
    assert (found["logtime"], found["traceparent"]) == ("2026-11-20T12:00:00.123Z", "00-1-2-01")
    assert (found["meshattempt"], found["meshorigin"]) == (1, "mesh.tasks.pricing:3:2")
    assert "headers" not in found


def test_numbers_of_many_digits_are_not_changed() -> None:
    event = Event("e", "/s", "t", SUCCEEDED, "r", b'{"n": 123456789012345678901234567890}')
    assert b'"data":{"n": 123456789012345678901234567890}' in orjson.dumps(record_json(record(event)))


@pytest.mark.parametrize(("type", "data"), [("text/plain", b"1"), ("application/json", b"{"), ("image/x", b"\xff")])
def test_a_payload_that_is_no_json_is_in_base64(type: str, data: bytes) -> None:
    found = record_json(record(Event("e", "/s", "t", SUCCEEDED, "r", data, content_type=type)))
    assert b64decode(found["data_base64"]) == data
    assert "data" not in found


def test_headers_that_the_mesh_does_not_know_are_kept() -> None:
    event = Event("e", "/s", "t", SUCCEEDED, "r", b"{}")
    found = record_json(record(event, headers=[*event_headers(event), ("app", b"x"), ("raw", b"\xff")]))
    assert found["headers"] == {"app": "x", "raw_base64": "/w=="}
    assert "meshorigin" not in record_json(record(event))  # an origin that no header names is not made up


def test_a_record_without_an_event_says_why() -> None:
    found = record_json(record(EVENT, headers=[("app", b"x")], key=b"\xff", value=b"[1]"))
    assert found["unreadable"]["code"] == "not_cloudevents"
    assert orjson.loads(orjson.dumps(found))["data"] == [1]
    assert (found["key_base64"], found["headers"]) == ("/w==", {"app": "x"})
    empty = record_json(record(EVENT, value=None, key=None))
    assert (empty["unreadable"]["code"], empty["key"]) == ("empty_value", None)
    assert "data" not in empty


def test_an_event_of_another_sender_has_the_attributes_that_it_was_sent_with() -> None:
    sent = Event("e1", "/shop", "order.placed", FOREIGN, "", b'{"a": 1}', subject="s", extensions=("tenant", "acme"))
    headers = [("ce_id", b"e1"), ("ce_tenant", b"acme"), ("app", b"x")]
    found = record_json(record(EVENT, headers=headers), sent)
    line = orjson.dumps(found)
    assert not [name for name in found if name.startswith("mesh")]
    assert {name: found[name] for name in ("id", "source", "type", "subject", "tenant", "datacontenttype")} == {
        "id": "e1",
        "source": "/shop",
        "type": "order.placed",
        "subject": "s",
        "tenant": "acme",
        "datacontenttype": "application/json",
    }
    assert b'"data":{"a": 1}' in line
    assert (found["headers"], found["offset"]) == ({"app": "x"}, 120)
    assert not {"time", "correlationid", "causationid", "expirytime", "traceparent"} & found.keys()
