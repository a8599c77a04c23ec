"""Requests as read from records, before admission; test_admission has the formats."""

from mesh.core.ingress.request_formats import Rejection, Request, request_of
from tests.core.doors import BODY, TOPOLOGY, binary, record, structured


def test_a_request_is_what_its_sender_put_there_and_no_gate_was_passed() -> None:
    assert request_of(record(), TOPOLOGY) == Request(
        "order.placed", BODY, origin="orders.placed:3:17", topic="orders.placed", key=b"any key"
    )
    found = request_of(binary(b"no JSON", id="\x00", type="any", source="/agents/x", tenant="eu"), TOPOLOGY)
    assert found == Request(
        *("any", b"no JSON", "\x00", "/agents/x"),
        origin="orders.placed:3:17",
        extensions=("tenant", "eu"),
        topic="orders.placed",
        key=b"any key",
    )


def test_an_unreadable_record_is_rejected() -> None:
    for given, code in (
        (record(value=None), "empty_value"),
        (record([("ce_id", b"\xff")]), "bad_header"),
        (structured(specversion="2.0"), "not_cloudevents"),
        (record(topic="elsewhere"), "unknown_type"),
    ):
        found = request_of(given, TOPOLOGY)
        assert isinstance(found, Rejection)
        assert found.code == code
