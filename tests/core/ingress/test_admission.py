"""Records of foreign producers become requests; test_admission_refused has the rejected ones."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.core.ingress.admission import admit, find_flaw, open_request
from mesh.core.ingress.request_formats import Rejection, Request
from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import ID_PATTERN, REQUESTED, Event, run_id_of
from mesh.core.protocol.record import StoredRecord
from tests.core.doors import BODY, TOPOLOGY, binary, record, structured, taken

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_plain_json_gets_type_id_and_source_from_its_topic() -> None:
    assert taken(record()) == Event(
        "o-1",
        "/topics/orders.placed",
        "order.placed",
        REQUESTED,
        run_id_of("/topics/orders.placed", "o-1"),
        BODY,
        subject="o-1",
        origin="orders.placed:3:17",
        topology=TOPOLOGY.digest,
    )


def test_plain_json_without_a_declared_id_is_named_by_its_coordinates() -> None:
    found = taken(record(value=b"{}", topic="github.webhooks"))
    assert found.id == "github.webhooks:3:17"
    assert found.run_id == run_id_of("/topics/github.webhooks", found.id)


def test_plain_json_may_bring_attributes_that_do_not_make_it_a_cloudevent() -> None:
    headers = [
        ("ce_correlationid", b"run-7"),
        ("ce_subject", b"late orders"),
        ("ce_causationid", b"e-0"),
        ("ce_expirytime", b"2026-11-20T13:00:00Z"),
        ("traceparent", TRACE.encode()),
        ("tracestate", b"a=b"),
        ("Content-Type", b"application/json; charset=utf-8"),
    ]
    found = taken(record(headers))
    assert (found.run_id, found.subject, found.cause_id) == ("run-7", "late orders", "e-0")
    assert found.expiry_ms == 1_795_179_600_000
    assert (found.traceparent, found.tracestate) == (TRACE, "a=b")


def test_an_integer_is_an_id_too() -> None:
    assert taken(record(value=b'{"order_id": 17}')).id == "17"


@pytest.mark.parametrize("write_sdk", [to_binary_event, to_structured_event])
def test_what_the_sdk_writes_is_taken_in_both_modes(write_sdk: Any) -> None:
    attributes = {
        "id": "e-1",
        "source": "https://shop.example/eu",
        "type": "order.placed",
        "time": datetime(2026, 11, 20, 12, tzinfo=UTC),
        "datacontenttype": "application/json",
        "subject": "o-1",
        "correlationid": "run-7",
        "causationid": "e-0",
        "expirytime": "2026-11-20T13:00:00Z",
        "partitionkey": "k",
    }
    message: KafkaMessage = write_sdk(CloudEvent(attributes, {"order_id": "o-1"}))
    found = taken(record(list(message.headers.items()), message.value))
    assert json.loads(found.data) == {"order_id": "o-1"}
    found.data = b""
    assert found == Event(
        "e-1",
        "https://shop.example/eu",
        "order.placed",
        REQUESTED,
        "run-7",
        b"",
        cause_id="e-0",
        time="2026-11-20T12:00:00Z",
        subject="o-1",
        expiry_ms=1_795_179_600_000,
        origin="orders.placed:3:17",
        topology=TOPOLOGY.digest,
        extensions=("partitionkey", "k"),
    )


def test_the_same_request_through_every_door_is_one_run() -> None:
    own = "/topics/orders.placed"
    doors = [
        taken(record()),
        taken(binary(source=own)),
        taken(structured(source=own)),
        open_request(Request("order.placed", BODY), TOPOLOGY, fallback_id="any"),
        open_request(Request("order.placed", BODY, id="o-1", source=own), TOPOLOGY, fallback_id="any"),
    ]
    assert {(door.id, door.run_id) for door in doors if isinstance(door, Event)} == {("o-1", run_id_of(own, "o-1"))}
    assert len(doors) == 5


def test_the_payload_is_passed_on_untouched() -> None:
    body = b'{ "order_id":"o-1",\n "x": 1.50 }'
    assert taken(record(value=body)).data == body
    assert taken(binary(body)).data == body


def test_headers_that_mean_nothing_here_may_hold_anything() -> None:
    headers = [("b3", b"\xff\xfe"), ("x", None), ("", b""), ("__TypeId__", b"\x00"), ("trace-id", b"\xff")]
    assert taken(record(headers)) == taken(record())


def test_mesh_headers_of_foreign_producers_are_not_read() -> None:
    claimed = taken(binary(meshkind="succeeded", meshdepth="-9", meshagent="pricing", meshtask="t", meshpath="a,b"))
    assert claimed == taken(binary())


def test_a_header_without_a_value_counts_as_absent() -> None:
    assert taken(record([("ce_correlationid", None), ("content-type", None)])) == taken(record())


@pytest.mark.parametrize(
    ("traceparent", "tracestate", "kept"),
    [
        (TRACE, "a=b", (TRACE, "a=b")),
        (TRACE, "", (TRACE, "")),
        (TRACE, "x" * 513, (TRACE, "")),
        (TRACE, "a\n", (TRACE, "")),
        ("", "a=b", ("", "")),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", "a=b", ("", "")),
        ("00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01", "a=b", ("", "")),
        (TRACE.upper(), "a=b", ("", "")),
        ("ff" + TRACE[2:], "a=b", ("", "")),
        ("nonsense", "a=b", ("", "")),
    ],
)
def test_a_trace_that_does_not_parse_is_left_behind(traceparent: str, tracestate: str, kept: tuple[str, str]) -> None:
    found = taken(record([("traceparent", traceparent.encode()), ("tracestate", tracestate.encode())]))
    assert (found.traceparent, found.tracestate) == kept


def test_a_broken_trace_does_not_stop_a_request() -> None:
    assert taken(record([("traceparent", b"\xff"), ("tracestate", b"\xff")])).traceparent == ""


def test_of_two_traces_none_is_known_to_be_the_right_one() -> None:
    other = TRACE.replace("b7", "c8")
    found = taken(record([("traceparent", TRACE.encode()), ("traceparent", other.encode()), ("tracestate", b"a=b")]))
    assert (found.traceparent, found.tracestate) == ("", "")
    assert not [name for name, _ in event_headers(found) if name.startswith("trace")]


def test_lists_of_a_tracestate_are_one() -> None:
    headers = [("TraceParent", TRACE.encode()), ("tracestate", b"a=1,b=2"), ("traceState", b"c=3")]
    assert taken(record(headers)).tracestate == "a=1,b=2,c=3"


@pytest.mark.parametrize("door", [binary, structured])
def test_the_trace_of_the_headers_comes_before_that_of_the_attributes(door: Any) -> None:
    other = TRACE.replace("b7", "c8")
    inside = {"traceparent": other, "tracestate": "inside=1"}
    for headers, kept in (
        ([], (other, "inside=1")),
        ([("traceparent", TRACE.encode())], (TRACE, "")),
        ([("traceparent", TRACE.encode()), ("tracestate", b"a=1")], (TRACE, "a=1")),
        ([("traceparent", b"nonsense"), ("tracestate", b"a=1")], (other, "inside=1")),
        ([("traceparent", TRACE.encode())] * 2, (other, "inside=1")),
        ([("tracestate", b"a=1")], (other, "inside=1")),
    ):
        given = door(**inside)
        found = taken(given._replace(headers=[*given.headers, *headers]))
        assert (found.traceparent, found.tracestate) == kept
        assert found.extensions == ()


# ------------------------------------------------------------------------------------------------- ids and extensions


@pytest.mark.parametrize(
    "id",
    [
        "partition:1/offset:24",  # Knative's KafkaSource
        'name:shop;lsn:29274832;txId:565;sequence:[null,"29274832"]',  # Debezium
        "A234-1234-1234",
        "ä b/c?d#e",
        "🙂",
        "x" * 1_024,
    ],
)
def test_every_id_that_cloudevents_allows_stays_as_it_is(id: str) -> None:
    for door in (binary(id=id), structured(id=id), record(value=json.dumps({"order_id": id}).encode())):
        found = taken(door)
        assert (found.id, dict(event_headers(found))["ce_id"].decode()) == (id, id)
        assert ID_PATTERN.fullmatch(found.run_id)
        assert find_flaw(found) is None
    assert taken(binary(id=id)).run_id != taken(binary(id=f"y{id[1:]}")).run_id


def test_a_causation_id_is_the_id_of_any_event() -> None:
    assert taken(binary(causationid="partition:1/offset:24")).cause_id == "partition:1/offset:24"


@pytest.mark.parametrize("door", [binary, structured])
def test_extension_attributes_and_the_schema_of_the_data_go_on(door: Any) -> None:
    found = taken(door(partitionkey="k", dataschema="https://x.example/s", iodebeziumop="c", meshkind="task"))
    assert found.extensions == ("dataschema", "https://x.example/s", "iodebeziumop", "c", "partitionkey", "k")
    assert taken(door()).extensions == ()


def test_extension_attributes_of_plain_json_go_on_too() -> None:
    assert taken(record([("ce_tenant", b"eu"), ("x-other", b"no")])).extensions == ("tenant", "eu")


def test_what_is_no_name_of_an_attribute_is_none() -> None:
    assert taken(record([("ce_a-b", b"1"), ("ce_", b"2"), ("ce_data", b"3")])).extensions == ()


def test_numbers_and_booleans_of_a_structured_event_go_on_as_text() -> None:
    assert taken(structured(iodebeziumtsms=17, iodebeziumsnapshot=False)).extensions == (
        *("iodebeziumsnapshot", "false"),
        *("iodebeziumtsms", "17"),
    )


def test_too_large_extension_attributes_are_refused_also_beside_a_causation_id() -> None:
    for cause in ([], [("ce_causationid", b"c-1")]):
        many = [(f"ce_x{n}", b"y" * 1_000) for n in range(5)]
        found = admit(record([*cause, *many]), TOPOLOGY)
        assert isinstance(found, Rejection)
        assert (found.code, found.message[:25]) == ("too_large", "5 extension attributes of")


# ------------------------------------------------------------------------------------------------------------ webhooks

HOOK_BODY = b'{"action": "opened", "issue": {"number": 1.50}}'


def test_a_raw_webhook_of_github_gets_kind_and_id_from_its_headers() -> None:
    headers = [("X-GitHub-Event", b"issues"), ("X-GitHub-Delivery", b"72d3162e-cc78-11e3-81ab-4c9367dc0958")]
    found = taken(record([*headers, ("Content-Type", b"application/json")], HOOK_BODY, "github.webhooks"))
    assert (found.type, found.id, found.subject) == (
        *("github.webhook", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        "issues/opened",
    )
    assert found.data == b'{"event":"issues","payload":' + HOOK_BODY + b"}"
    assert found.run_id == taken(record(headers, b"{}", "github.webhooks")).run_id, "a redelivery is one run"


def test_a_webhook_without_an_action_or_a_delivery_is_taken_too() -> None:
    found = taken(record([("x-github-event", b'pu"sh')], b"[]", "github.webhooks"))
    assert (found.id, found.subject) == ("github.webhooks:3:17", 'pu"sh')
    assert json.loads(found.data) == {"event": 'pu"sh', "payload": []}


@pytest.mark.parametrize("body", [b'{}, "event": "forged"', b'{}, "other": 1', b"", b"{", b'{"a":1,"a":2}'])
def test_a_webhook_whose_body_is_no_document_is_refused(body: bytes) -> None:
    assert isinstance(admit(record([("x-github-event", b"push")], body, "github.webhooks"), TOPOLOGY), Rejection)


# ----------------------------------------------------------------------------------------------------------- totality

NAMES = st.sampled_from(
    ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_correlationid", "ce_expirytime", "content-type"]
) | st.text(max_size=6)
VALUES = (
    st.none()
    | st.binary(max_size=12)
    | st.sampled_from([b"1.0", b"order.placed", b"o-1", b"/s", b"application/cloudevents+json"])
)
BODIES = (
    st.none() | st.binary(max_size=40) | st.sampled_from([BODY, b"{}", structured().value, b'{"specversion":"1.0"}'])
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=8), BODIES, st.sampled_from(["orders.placed", "github.webhooks"]))
@example([("ce_expirytime", b"0001-01-01T00:00:00+23:59")], BODY, "orders.placed")
def test_any_record_is_a_request_or_rejected(headers: list[tuple[str, Any]], body: bytes | None, topic: str) -> None:
    found = admit(record(headers, body, topic), TOPOLOGY)
    if isinstance(found, Event):
        again = read_event(StoredRecord("mesh.inbox", 0, 0, found.at_ms, b"", found.data, event_headers(found)))
        assert isinstance(again, Event)
        found.time = again.time
        assert again == found
    else:
        assert found.message.isprintable()


ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=10)


@given(
    st.builds(
        Request,
        st.just("order.placed") | ANY_TEXT,
        st.just(BODY) | st.binary(max_size=20),
        st.none() | ANY_TEXT,
        ANY_TEXT,
        st.none() | ANY_TEXT,
        ANY_TEXT,
        ANY_TEXT,
        st.none() | ANY_TEXT,
        ANY_TEXT,
        st.just("application/json") | ANY_TEXT,
        ANY_TEXT,
        ANY_TEXT,
        extensions=st.sampled_from([(), ("tenant", "eu"), ("a", "\ud800")]),
    )
)
def test_any_request_is_an_event_that_can_be_written_or_rejected(request_: Request) -> None:
    found = open_request(request_, TOPOLOGY, fallback_id="f-1")
    if isinstance(found, Event):
        event_headers(found)
