"""Records of any topic are read as events where they hold one."""

from typing import Any

import pytest

from mesh.core.ingress.foreign_events import event_in
from mesh.core.protocol.codec import Unreadable, event_headers, internal_headers
from mesh.core.protocol.event import FOREIGN, SUCCEEDED, Event
from mesh.core.protocol.record import StoredRecord
from tests.core.doors import BODY, TOPOLOGY, binary, record, structured, taken

THEIRS = "theirs"
BATCH: list[tuple[str, Any]] = [("content-type", b"application/cloudevents-batch+json")]


def read(given: StoredRecord) -> Event:
    found = event_in(given, TOPOLOGY)
    assert isinstance(found, Event), found
    return found


def unread(given: StoredRecord) -> Unreadable:
    found = event_in(given, TOPOLOGY)
    assert isinstance(found, Unreadable), found
    return found


@pytest.mark.parametrize(
    "given", [binary(subject="s-1", tenant="acme"), structured(subject="s-1", tenant="acme")], ids=["binary", "json"]
)
@pytest.mark.parametrize("topic", ["orders.placed", THEIRS])
def test_a_cloud_event_is_read_in_any_topic(given: StoredRecord, topic: str) -> None:
    found = read(given._replace(topic=topic))
    assert (found.kind, found.type, found.id, found.source) == (FOREIGN, "order.placed", "o-1", "/shop")
    assert (found.subject, found.extensions, found.at_ms) == ("s-1", ("tenant", "acme"), given.timestamp)
    assert b'"order_id"' in found.data
    assert found.run_id == (taken(given).run_id if topic == "orders.placed" else "")


@pytest.mark.parametrize("given", [record(), binary(), structured()], ids=["plain", "binary", "json"])
def test_a_record_of_an_ingress_topic_has_the_run_that_the_intake_opens(given: StoredRecord) -> None:
    found, admitted = read(given), taken(given)
    assert (found.run_id, found.id, found.source) == (admitted.run_id, admitted.id, admitted.source)
    assert found.data == admitted.data
    assert found.topology == ""


def test_a_run_that_a_cloud_event_names_is_its_run() -> None:
    found = read(binary(correlationid="run-7", expirytime="2026-12-01T00:00:01Z")._replace(topic=THEIRS))
    assert (found.run_id, found.expiry_ms) == ("run-7", 1_796_083_201_000)
    assert read(binary(expirytime="soon")).expiry_ms is None


def test_an_event_of_the_mesh_is_read_as_such() -> None:
    event = Event("e", "/agents/a", "t", SUCCEEDED, "run-1", b"{}", agent="a", task_id="t-1", depth=1)
    for headers in (event_headers(event), internal_headers(event)):
        assert read(record(None, b"{}", THEIRS)._replace(headers=headers)).kind == SUCCEEDED


@pytest.mark.parametrize(
    ("given", "type"),
    [(binary(type="other.type"), "other.type"), (binary(b"\x02avro", contenttype="x"), "order.placed")],
    ids=["unknown type", "no JSON"],
)
def test_a_cloud_event_that_the_intake_rejects_is_shown_without_a_run(given: StoredRecord, type: str) -> None:
    found = read(given)
    assert (found.kind, found.type, found.run_id) == (FOREIGN, type, "")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (record(value=b"\xff\x00"), "unparseable"),
        (record(value=None), "empty_value"),
        (record(value=None, topic=THEIRS), "empty_value"),
        (record(topic=THEIRS), "not_cloudevents"),
        (record([("ce_specversion", b"1.0"), ("ce_id", b"x")], topic=THEIRS), "missing_header"),
        (record([("ce_specversion", b"0.3"), ("ce_id", b"x")], topic=THEIRS), "not_cloudevents"),
        (record(BATCH, b"[]", THEIRS), "unparseable"),
        (structured(specversion="9")._replace(topic=THEIRS), "not_cloudevents"),
        (record([("mesh-event", b"[99]")], topic=THEIRS), "later_version"),
        (binary(meshkind="task", id=b"\xff")._replace(topic=THEIRS), "bad_header"),
    ],
)
def test_bytes_that_are_no_event_say_why(given: StoredRecord, code: str) -> None:
    assert unread(given).code == code


def test_plain_json_in_a_foreign_topic_is_no_event() -> None:
    assert unread(record(topic=THEIRS)).message == "the record has no CloudEvents headers"
    assert read(record(value=BODY)).type == "order.placed"
