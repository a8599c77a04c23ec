"""Events: deterministic ids, batches of any payloads, times."""

import json
import string

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mesh.core.protocol.event import (
    BATCH,
    ID_PATTERN,
    Event,
    Fault,
    Part,
    Usage,
    decode_batch,
    derive_id,
    encode_batch,
    fingerprint,
    parse_json,
    rfc3339,
    run_id_of,
)

IDS = st.text(string.ascii_letters + string.digits + "._:-", min_size=1, max_size=128)
TYPES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=20)


@given(IDS)
def test_an_id_of_the_stated_form_is_an_id(id: str) -> None:
    assert ID_PATTERN.fullmatch(id)


@pytest.mark.parametrize("id", ["", " ", "a b", "a" * 129, "a\n", "\x00", "ä", "٣", "a/b", "a\u202eb", "🙂", "a,b"])
def test_anything_else_is_no_id(id: str) -> None:
    assert not ID_PATTERN.fullmatch(id)


def test_a_derived_id_never_changes() -> None:
    """Known answers of `b2sum`: a change here would make duplicates of everything that was ever sent."""
    assert derive_id("run", "event", 0) == "2aa51dacfd716219ab0f68bc591b1b04"
    assert run_id_of("/topics/orders.placed", "o-1") == "17592f4319c2264b91673ff5"
    assert fingerprint(b"{}") == "01e7b720ff566d53"


@given(st.lists(IDS | st.integers(0, 99), min_size=1, max_size=4), st.lists(IDS | st.integers(0, 99), max_size=4))
def test_different_parts_make_different_ids(left: list[str | int], right: list[str | int]) -> None:
    same = [str(p) for p in left] == [str(p) for p in right]
    assert (derive_id(*left) == derive_id(*right)) == same


def test_neighbouring_parts_do_not_run_into_one_another() -> None:
    assert derive_id("ab", "c") != derive_id("a", "bc")
    assert run_id_of("/ab", "c") != run_id_of("/a", "bc")
    assert ID_PATTERN.fullmatch(derive_id("x"))
    assert ID_PATTERN.fullmatch(run_id_of("/any source\u2028", "x"))


@given(st.lists(st.tuples(TYPES, st.binary(max_size=30) | st.sampled_from([b"{}", b"null", b'{"a":1.5}'])), max_size=5))
@example([("a", b"not json"), ("b", b'{"n":123456789012345678901234567890}'), ("c", b" null"), ("d", b"[NaN]")])
def test_a_batch_gives_back_every_type_and_payload(given_parts: list[tuple[str, bytes]]) -> None:
    parts = [Part(type, data) for type, data in given_parts]
    found = decode_batch(encode_batch(parts, source="/agents/a", event_id="t:1"))
    assert [p.type for p in found] == [p.type for p in parts]
    for was, is_now in zip(parts, found, strict=True):
        assert is_now.data == was.data or json.loads(is_now.data) == json.loads(was.data)


def test_a_batch_is_a_json_array_of_structured_cloudevents() -> None:
    data = encode_batch([Part("a", b'{"x":1}'), Part("b", b"\xff")], source="/agents/a", event_id="t:1")
    assert orjson.loads(data) == [
        {
            "specversion": "1.0",
            "id": "t:1:0",
            "source": "/agents/a",
            "type": "a",
            "datacontenttype": "application/json",
            "data": {"x": 1},
        },
        {"specversion": "1.0", "id": "t:1:1", "source": "/agents/a", "type": "b", "data_base64": "/w=="},
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}",
        b"null",
        b"[1]",
        b"[[]]",
        b'[{"data":1}]',
        b'[{"type":"a"}]',
        b'[{"type":"","data":1}]',
        b'[{"type":5,"data":1}]',
        b'[{"type":"a","data":1,"data_base64":""}]',
        b'[{"type":"a","data_base64":5}]',
        b'[{"type":"a","data_base64":"%"}]',
        b'[{"type":"a","data_base64":"\xc3\xa4"}]',
        b"[" * 100_000,
    ],
)
def test_what_is_no_batch_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_batch(data)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_batch_or_a_value_error(data: bytes) -> None:
    event = Event("i", "/s", "t", "succeeded", "r", data, content_type=BATCH)
    try:
        parts = event.parts()
    except ValueError:
        return
    assert all(part.type for part in parts)


def test_an_event_that_is_no_batch_is_its_own_only_part() -> None:
    assert Event("i", "/s", "t", "requested", "r", b"[1,2]").parts() == (Part("t", b"[1,2]"),)


def test_an_event_defaults_to_a_first_attempt_without_a_task() -> None:
    event = Event("i", "/s", "t", "requested", "r", b"")
    assert (event.attempt, event.depth, event.path, event.task_id, event.agent) == (1, 0, (), "", "")
    assert (event.usage, event.fault, event.expiry_ms, event.at_ms) == (Usage(0, 0), None, None, 0)
    assert Fault("x", "y").retryable


@pytest.mark.parametrize(
    ("at_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-5, "1970-01-01T00:00:00.000Z"),
        (1_795_176_000_123, "2026-11-20T12:00:00.123Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (10**18, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_written_in_utc_to_the_millisecond(at_ms: int, text: str) -> None:
    assert rfc3339(at_ms) == text


def test_a_payload_that_is_no_json_reads_as_nothing() -> None:
    assert parse_json(b'{"a":1}') == {"a": 1}
    assert parse_json(b"{") is None
    assert parse_json(b"\xff") is None
