"""The parts of structured CloudEvents."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.protocol.cloudevents_json import STRUCTURED, StructuredEvent, is_structured, unwrap
from mesh.core.protocol.json_check import Flaw

EVENT: dict[str, Any] = {"specversion": "1.0", "id": "e-1", "source": "/s", "type": "t", "data": {"a": 1}}


def taken(**changes: Any) -> StructuredEvent:
    found = unwrap(json.dumps({**EVENT, **changes}).encode(), STRUCTURED)
    assert isinstance(found, StructuredEvent)
    return found


@pytest.mark.parametrize(
    ("content_type", "structured"),
    [
        ("application/cloudevents+json", True),
        ("Application/CloudEvents+JSON; charset=UTF-8", True),
        ("application/cloudevents-batch+json", True),
        ("application/cloudevents+avro", True),
        ("application/json", False),
        ("", False),
    ],
)
def test_the_content_type_determines_the_mode(content_type: str, structured: bool) -> None:
    assert is_structured(content_type) is structured


def test_attributes_become_texts_and_data_becomes_bytes() -> None:
    found = taken(meshdepth=3, flag=True, note=None, time="2026-11-20T12:00:00Z")
    assert found == StructuredEvent(
        {
            "specversion": "1.0",
            "id": "e-1",
            "source": "/s",
            "type": "t",
            "meshdepth": "3",
            "flag": "true",
            "time": "2026-11-20T12:00:00Z",
        },
        b'{"a":1}',
        "application/json",
    )


@pytest.mark.parametrize(
    ("change", "data", "content_type"),
    [
        ({"data": "text"}, b'"text"', "application/json"),
        ({"data": None}, b"null", "application/json"),
        ({"datacontenttype": "application/vnd.x+json"}, b'{"a":1}', "application/vnd.x+json"),
        ({"datacontenttype": None}, b'{"a":1}', "application/json"),
    ],
)
def test_data_is_what_its_content_type_says(change: dict[str, Any], data: bytes, content_type: str) -> None:
    found = taken(**change)
    assert (found.data, found.content_type) == (data, content_type)


def test_binary_data_is_decoded_and_missing_data_is_none() -> None:
    bare = {name: value for name, value in EVENT.items() if name != "data"}
    assert unwrap(json.dumps({**bare, "data_base64": "eyJhIjoxfQ=="}).encode(), STRUCTURED)[1] == b'{"a":1}'
    assert unwrap(json.dumps(bare).encode(), STRUCTURED)[1] is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"specversion": "0.3"}, "not_cloudevents"),
        ({"specversion": 1.0}, "not_cloudevents"),
        ({"specversion": None}, "not_cloudevents"),
        ({"id": 5}, "bad_id"),
        ({"id": {"x": 1}}, "bad_id"),
        ({"source": 5}, "bad_header"),
        ({"type": ["t"]}, "bad_header"),
        ({"ext": {"a": 1}}, "bad_header"),
        ({"ext": 1.5}, "bad_header"),
        ({"datacontenttype": 5}, "bad_header"),
        ({"data_base64": "e30="}, "unparseable"),
    ],
)
def test_a_bad_attribute_is_named(change: dict[str, Any], code: str) -> None:
    flaw = unwrap(json.dumps({**EVENT, **change}).encode(), STRUCTURED)
    assert isinstance(flaw, Flaw)
    assert flaw.code == code


@pytest.mark.parametrize("encoded", ['"%%"', '"e30"', '"ä"', "5", "[]"])
def test_bad_base64_is_unparseable(encoded: str) -> None:
    body = '{"specversion":"1.0","id":"e","source":"/s","type":"t","data_base64":' + encoded + "}"
    flaw = unwrap(body.encode(), STRUCTURED)
    assert isinstance(flaw, Flaw)
    assert flaw.code == "unparseable"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty_value"),
        (b"[]", "unparseable"),
        (b'"x"', "unparseable"),
        (b"{", "unparseable"),
        (b"[" * 100_000, "too_deep"),
        (b'{"specversion":"1.0","specversion":"1.0"}', "duplicate_key"),
        (b'{"specversion":"1.0","data":NaN}', "bad_number"),
        (b'{"specversion":"1.0","data":123456789012345678901}', "bad_number"),
    ],
)
def test_a_body_that_is_no_event_is_named_for_its_flaw(body: bytes, code: str) -> None:
    flaw = unwrap(body, STRUCTURED)
    assert isinstance(flaw, Flaw)
    assert flaw.code == code


def test_other_formats_and_batches_are_not_read() -> None:
    for content_type in ("application/cloudevents+avro", "application/cloudevents-batch+json"):
        flaw = unwrap(json.dumps(EVENT).encode(), content_type)
        assert isinstance(flaw, Flaw)
        assert flaw.code == "unparseable"


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), st.lists, max_leaves=5))
def test_any_member_gets_an_answer(value: Any) -> None:
    for name in ("specversion", "id", "data", "data_base64", "datacontenttype", "ext"):
        unwrap(json.dumps({**EVENT, name: value}).encode(), STRUCTURED)
