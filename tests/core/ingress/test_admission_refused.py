"""Rejected requests: each has a reason code and a readable message."""

import json
from typing import Any

import pytest

from mesh.core.ingress.admission import admit, open_request
from mesh.core.ingress.request_formats import ENVELOPE_BYTES_MAX, TEXT_CHARS_MAX, Rejection, Request
from mesh.core.protocol.event import Event, run_id_of
from mesh.core.topology.model import Limits, TopicRule, Topology
from tests.core.doors import BODY, LIMIT, TOPOLOGY, binary, record, refused, structured, taken

BAD_IDS = ["", "a" * 1_025, "a\nb", "\x00", "a\u202eb"]
BAD_RUNS = [*BAD_IDS, " ", "a b", "a" * 129, "äöü", "٣", "../x", "🙂"]


@pytest.mark.parametrize("id", BAD_IDS)
def test_a_bad_id_is_refused_through_every_door(id: str) -> None:
    for door in (
        binary(id=id),
        structured(id=id),
        record(value=json.dumps({"order_id": id}).encode()),
        Request("order.placed", BODY, id=id),
    ):
        assert refused(door).code == "bad_id"


@pytest.mark.parametrize("id", BAD_RUNS)
def test_a_bad_run_id_is_refused_through_every_door(id: str) -> None:
    for door in (
        record([("ce_correlationid", id.encode())]),
        binary(correlationid=id),
        structured(correlationid=id),
        Request("order.placed", BODY, run_id=id),
    ):
        assert refused(door).code == "bad_id"


@pytest.mark.parametrize("id", [id for id in BAD_IDS if id])
def test_a_bad_causation_id_is_refused(id: str) -> None:
    assert refused(binary(causationid=id)).code == "bad_id"


@pytest.mark.parametrize("value", [b"{}", b'{"order_id":null}', b'{"order_id":true}', b'{"order_id":1.5}', b"[]", b"1"])
def test_a_declared_id_that_is_not_there_is_not_invented(value: bytes) -> None:
    found = refused(record(value=value))
    assert found.code == "bad_id"
    assert "'order_id'" in found.message


@pytest.mark.parametrize("name", ["id", "source", "type"])
def test_a_missing_or_empty_attribute_is_named(name: str) -> None:
    missing = [header for header in binary().headers if header[0] != f"ce_{name}"]
    for door in (record(missing), binary(**{name: ""}), structured(**{name: ...}), structured(**{name: ""})):
        found = refused(door)
        assert found.code == ("bad_id" if name == "id" else "missing_header")
        assert repr(name) in found.message


@pytest.mark.parametrize("version", ["0.3", "2.0", "", "1"])
def test_another_version_of_cloudevents_is_not_read(version: str) -> None:
    assert refused(binary(specversion=version)).code == "not_cloudevents"
    assert refused(structured(specversion=version)).code == "not_cloudevents"


def test_one_attribute_makes_a_cloudevent_so_that_the_others_are_missed() -> None:
    assert refused(record([("ce_type", b"github.webhook")])).code == "not_cloudevents"


def test_an_unknown_type_is_answered_with_the_nearest_one() -> None:
    found = refused(binary(type="order.placd"))
    assert found == Rejection(
        "unknown_type",
        "no ingress topic declares type 'order.placd'; did you mean 'order.placed'?",
        run_id_of("/topics/orders.placed\0/shop", "o-1"),
    )


def test_an_unknown_type_like_no_other_is_answered_with_those_known() -> None:
    assert refused(binary(type="zzz")).message.endswith("known: github.webhook, order.placed")


def test_of_many_known_types_some_are_shown() -> None:
    rules = {f"t{n:02}": TopicRule(f"t{n:02}", ingress=f"t{n:02}") for n in range(20)}
    wide = Topology("desk", "0" * 16, Limits(), {}, rules, ingress=rules)
    found = open_request(Request("zzz", b"{}"), wide, fallback_id="f")
    assert isinstance(found, Rejection)
    assert found.message.endswith("known: t00, t01, t02, t03, t04, t05, t06, t07 and 12 more")


def test_an_egress_type_and_a_topic_without_ingress_are_unknown() -> None:
    assert refused(binary(type="order.rejected")).code == "unknown_type"
    assert refused(record(topic="orders.decided")).code == "unknown_type"
    assert refused(record(topic="elsewhere")).code == "unknown_type"


def test_a_payload_at_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    def body(size: int) -> bytes:
        return b'{"order_id":"o-1","x":"' + b"x" * (size - 25) + b'"}'

    assert len(taken(record(value=body(LIMIT))).data) == LIMIT
    found = refused(record(value=body(LIMIT + 1)))
    assert found.code == "too_large"
    assert f"{LIMIT + 1} bytes; at most {LIMIT}" in found.message


def test_a_structured_event_over_the_limit_is_refused_before_it_is_parsed() -> None:
    body = b"[" * (LIMIT + ENVELOPE_BYTES_MAX + 1)
    assert refused(record([("content-type", b"application/cloudevents+json")], body)).code == "too_large"
    assert refused(structured(data={"order_id": "o-1", "x": "x" * LIMIT})).code == "too_large"


@pytest.mark.parametrize("name", ["source", "subject"])
def test_a_text_over_the_limit_is_refused(name: str) -> None:
    assert refused(binary(**{name: "x" * (TEXT_CHARS_MAX + 1)})).code == "too_large"
    assert isinstance(admit(binary(**{name: "x" * TEXT_CHARS_MAX}), TOPOLOGY), Event)


@pytest.mark.parametrize("text", ["a\x00", "\x1b[31m", "a\n", "\x7f", "\u202egnp", "\u2066", "\ufffe", "\x85"])
@pytest.mark.parametrize("name", ["source", "subject"])
def test_a_text_with_control_characters_is_refused(name: str, text: str) -> None:
    assert refused(binary(**{name: text})).code == "bad_string"
    assert refused(structured(**{name: text})).code == "bad_string"


@pytest.mark.parametrize("field", ["type", "source", "subject", "time", "content_type", "run_id", "id", "cause_id"])
def test_a_lone_surrogate_from_a_command_line_is_refused(field: str) -> None:
    request = {"type": "order.placed", "data": BODY, field: "\udcff"}
    refused(Request(**request))  # type: ignore[arg-type]


@pytest.mark.parametrize("time", ["yesterday", "2026-11-20", "2026-11-20T12:00:00", "1795176000"])
def test_a_time_that_is_invalid_is_refused(time: str) -> None:
    assert refused(binary(time=time)).code == "bad_time"


@pytest.mark.parametrize("expiry", ["", "tomorrow", "-5", "10s", "2026-11-20T12:00:00", "99999-01-01T00:00:00Z"])
def test_an_invalid_deadline_is_refused_to_the_waiting_client(expiry: str) -> None:
    assert refused(binary(expirytime=expiry))[::2] == ("bad_deadline", taken(binary()).run_id)


def test_a_deadline_in_the_past_is_for_the_log_to_judge() -> None:
    assert taken(binary(expirytime="1970-01-01T00:00:00Z")).expiry_ms == 0


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "application/xml", "application/cloudevents-batch+json"]
)
def test_a_payload_that_says_it_is_not_json_is_refused(content_type: str) -> None:
    assert refused(record([("content-type", content_type.encode())])).code == "unparseable"
    assert refused(structured(datacontenttype=content_type)).code == "unparseable"
    assert refused(Request("order.placed", BODY, content_type=content_type)).code == "unparseable"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_value"),
        (None, "empty_value"),
        (b"\xff", "unparseable"),
        (b"not json", "unparseable"),
        (b'{"order_id":"o-1"} x', "unparseable"),
        (b"\xef\xbb\xbf{}", "unparseable"),
        (b'{"order_id":"o-1","order_id":"o-2"}', "duplicate_key"),
        (b'{"order_id":"o-1","x":NaN}', "bad_number"),
        (b'{"order_id":"o-1","x":1e999}', "bad_number"),
        (b'{"order_id":' + b"1" * 4_000 + b"}", "bad_number"),
        (b'{"order_id":"\\ud800"}', "bad_string"),
        (b'{"a":' * 700, "unparseable"),
        (b"[" * 2_000 + b"]" * 2_000, "too_deep"),
    ],
)
def test_a_bad_body_is_refused_in_plain_and_binary_mode(body: bytes | None, code: str) -> None:
    assert refused(record(value=body)).code == code
    assert refused(binary(body)).code == code


def test_a_structured_event_without_data_is_empty() -> None:
    assert refused(structured(data=...)).code == "empty_value"


@pytest.mark.parametrize("content_type", ["application/cloudevents+avro", "application/cloudevents-batch+json"])
def test_other_forms_of_structured_mode_are_named(content_type: str) -> None:
    found = refused(structured(content_type))
    assert found.code == "unparseable"
    assert content_type in found.message


def test_an_attribute_that_stands_twice_is_refused_in_any_case_of_letters() -> None:
    for name in ("ce_id", "Ce_Id", "CE_ID"):
        assert refused(record([*binary().headers, (name, b"o-2")])).code == "bad_header"


def test_an_attribute_that_is_not_utf_8_is_refused() -> None:
    assert refused(binary(source=b"\xff")).code == "bad_header"
    assert refused(record([("content-type", b"\xff")])).code == "bad_header"


@pytest.mark.parametrize(
    ("request_", "run_id"),
    [
        (Request("order.placed", b"{", run_id="run-7"), "run-7"),
        (Request("order.placed", b"{", id="e-1", source="/shop"), run_id_of("/shop", "e-1")),
        (Request("order.placed", b"{", id="e-1"), ""),
        (Request("order.placed", b"{"), ""),
        (Request("order.placed", b"{", run_id="bad id", id="e-1", source="/shop"), ""),
        (Request("order.placed", b"{", id="bad\nid", source="/shop"), ""),
        (Request("order.placed", b"{", id="e-1", source="\ud800"), ""),
        (Request("zzz", b"{}", run_id="run-7"), "run-7"),
        (Request("order.placed", b"{}", run_id="run-7"), "run-7"),
    ],
)
def test_a_rejection_names_the_run_that_a_client_may_wait_for(request_: Request, run_id: str) -> None:
    assert refused(request_).run_id == run_id


@pytest.mark.parametrize("door", [binary, structured])
def test_extension_attributes_have_a_limit_since_every_run_keeps_them(door: Any) -> None:
    at_most = {f"e{n}": "x" * 1_000 for n in range(4)}
    assert isinstance(admit(door(**at_most), TOPOLOGY), Event)
    for more in ({**at_most, "more": "x" * 100}, {f"e{n}": "x" for n in range(65)}, {"one": "x" * 1_025}):
        assert refused(door(**more)).code == "too_large"
    assert refused(door(tenant="a\x00b")).code == "bad_string"
