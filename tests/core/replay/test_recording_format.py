"""Records as lines of a recording: every record comes back as it was, secrets apart."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import InvalidInput
from mesh.core.expression.field_path import parse_path
from mesh.core.protocol.cloudevents_json import STRUCTURED, unwrap
from mesh.core.protocol.codec import event_headers, internal_headers, read_event
from mesh.core.protocol.event import EGRESS, SUCCEEDED, Event, Fault, Part, Usage, encode_batch
from mesh.core.protocol.record import Headers, StoredRecord, UnreadValue
from mesh.core.replay.recording_format import Masking, RecordingHead, end_line, read_head, read_record, record_line
from mesh.core.topology.loader import load

TOPOLOGY = load(
    "mesh: {name: desk}\ntopics:\n  asks: {ingress: ask}\nagents:\n  a: {run: 'm:f', on: ask}\n", path="topics.yaml"
)
EVENT = Event(
    *("e1", "/agents/pricing", "order.priced", SUCCEEDED, "run-1", b'{"total":12}'),
    cause_id="c1",
    agent="pricing",
    task_id="t1",
    depth=2,
    path=("intake", "pricing"),
    attempt=2,
    time="2026-11-20T12:00:00.000Z",
    subject="o-1",
    expiry_ms=1_795_176_060_123,
    traceparent="00-1-2-01",
    tracestate="a=b",
    usage=Usage(5, 7),
    fault=Fault("exception", "it was glass", "builtins.ValueError", True, "Traceback", 100),
    origin="mesh.tasks.pricing:3:2",
    topology="f" * 16,
    waited_ms=250,
)


def record(event: Event = EVENT, **changes: object) -> StoredRecord:
    stored = StoredRecord("desk.inbox", 2, 120, 1_795_176_000_123, b"run-1", event.data, list(event_headers(event)))
    return stored._replace(**changes)  # type: ignore[arg-type]


def again(one: StoredRecord) -> StoredRecord:
    """The record as it is read from its line."""
    return read_record(record_line(one), "run.jsonl", 2)


def same(one: StoredRecord, other: StoredRecord) -> bool:
    return one._replace(headers=tuple(one.headers)) == other._replace(headers=tuple(other.headers))


def test_an_event_is_a_cloud_event_with_its_place_first() -> None:
    line = record_line(record())
    assert line.startswith(b'{"topic":"desk.inbox","partition":2,"offset":120,"specversion":"1.0"')
    assert line.endswith(b"}\n")
    found = orjson.loads(line)
    assert found["data"] == {"total": 12}
    assert (found["meshagent"], found["logtime"], found["key"]) == ("pricing", "2026-11-20T12:00:00.123Z", "run-1")
    assert unwrap(line, STRUCTURED)
    assert not {"headers", "text"} & found.keys()
    assert same(again(record()), record())


@pytest.mark.parametrize(
    "changes",
    [
        {"value": b'{ "total": 12 }'},
        {"value": b'{"total": 12,\r\n "n": 123456789012345678901234567890}'},
        {"value": b'{"a":1,"a":2}'},
        {"value": b"no JSON"},
        {"value": b"\xff\x00"},
        {"value": b""},
        {"value": None},
        {"key": None},
        {"key": b"\xfe"},
        {"headers": []},
        {"headers": [("a", b"1"), ("a", b"2")]},
        {"headers": [*event_headers(EVENT), ("other", b"1"), ("mesh-redrives", b"2")]},
        {"headers": [*event_headers(EVENT), ("other", b"\xff"), ("none", None)]},
        {"headers": [("other", b"1"), *event_headers(EVENT)]},
        {"headers": [*event_headers(EVENT), ("ce_topic", b"mine")]},
        {"headers": [(n, v) for n, v in event_headers(EVENT) if n != "ce_expirytime"] + [("mesh-lifetime-ms", b"500")]},
        {"headers": [header for header in event_headers(EVENT) if header[0] != "ce_time"]},
        {"headers": [header for header in event_headers(EVENT) if header[0] != "mesh-origin"]},
        {"headers": [("mesh-origin", b"desk.inbox:2:120"), *event_headers(replace(EVENT, origin=""))]},
        {"headers": [("content-type", b"application/json"), ("Authorization", b"")]},
    ],
)
def test_every_record_comes_back_byte_for_byte(changes: dict[str, Any]) -> None:
    assert same(again(record(**changes)), record(**changes))
    assert read_event(again(record(**changes))) == read_event(record(**changes))


def test_an_event_with_extensions_comes_back_and_leaves_the_mesh() -> None:
    for kind in (SUCCEEDED, EGRESS):
        event = replace(EVENT, extensions=("dataschema", "http://x/y", "offset", "7"), kind=kind)
        assert same(again(record(event)), record(event))


def test_packed_headers_come_back_in_plain_form() -> None:
    packed = record(headers=internal_headers(EVENT))
    assert len(packed.headers) == 1
    assert record_line(packed) == record_line(record())
    assert same(again(packed), record())
    assert read_event(again(packed)) == read_event(packed)


def test_an_unpacked_value_stays_unread() -> None:
    found = again(record(value=UnreadValue("too_large", "it takes 9 GB")))
    assert isinstance(found.value, UnreadValue)
    assert (found.value.code, found.value.message) == ("too_large", "it takes 9 GB")


@given(
    key=st.none() | st.binary(max_size=8),
    value=st.none() | st.binary(max_size=20) | st.just(b'{"a": 1}'),
    headers=st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=4),
)
def test_any_record_comes_back(key: bytes | None, value: bytes | None, headers: Headers) -> None:
    one = record(key=key, value=value, headers=headers)
    assert same(again(one), one)


def test_a_payload_that_was_edited_is_the_payload() -> None:
    line = record_line(record()).replace(b'"total":12', b'"total":13')
    assert read_record(line, "run.jsonl", 2).value == b'{"total":13}'


HEAD = RecordingHead(
    mesh_version="0.1.0",
    topology=TOPOLOGY,
    log="sqlite:mesh.db",
    recorded_ms=1_795_176_000_123,
    bounds={"desk.inbox": [(0, 120), (3, 9)]},
    commits={"desk.orchestrator": {"desk.inbox": {1: (9, "note")}}},
    chosen={"run": "run-1"},
    redacted=["card"],
)


def test_the_head_comes_back() -> None:
    found = read_head(HEAD.line(), "run.jsonl")
    assert found.topology.digest == TOPOLOGY.digest
    assert list(found.topology.agents) == ["a"]
    assert replace(found, topology=TOPOLOGY) == HEAD


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "this is no recording"),
        (b"[]\n", "this is no recording"),
        (b'{"id":"d0"}\n', "this is no recording"),
        (b'{"recording":2}\n', "the recording has format 2; expected format 1"),
        (b'{"recording":1}\n', "the head cannot be read: the field 'mesh_version' is missing"),
    ],
)
def test_a_head_that_cannot_be_read_says_why(line: bytes, text: str) -> None:
    with pytest.raises(InvalidInput, match=rf"run\.jsonl:1: {text}"):
        read_head(line, "run.jsonl")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("topology", {}, "no topology that this version knows: the field 'format' is missing"),
        ("topology", 7, "no topology that this version knows: a value is of the wrong type"),
        ("topology", {"format": 99}, "it is of format 99"),
        ("topics", [], "a value is of the wrong type"),
        ("topics", {"desk.inbox": [[5, 2]]}, r"\[5, 2\] are no offsets"),
    ],
)
def test_a_damaged_field_of_the_head_is_named_in_plain_words(name: str, value: Any, text: str) -> None:
    line = orjson.dumps({**orjson.loads(HEAD.line()), name: value})
    with pytest.raises(InvalidInput, match=f"the head cannot be read: {text}") as raised:
        read_head(line, "run.jsonl")
    assert "Error" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"topic":"a"', "the line is no JSON"),
        (b'{"topic":"a","partition":0,"offset":1}', "the record cannot be read: the field 'logtime' is missing"),
        (
            b'{"topic":"a","partition":0,"offset":1,"logtime":"2026-11-20T12:00:00Z","key":null,"data":1}',
            "the record cannot be read: [a-z]",
        ),
    ],
)
def test_a_damaged_record_names_its_line(line: bytes, text: str) -> None:
    with pytest.raises(InvalidInput, match=rf"run\.jsonl:7: {text}"):
        read_record(line, "run.jsonl", 7)


def test_the_end_says_what_the_file_holds() -> None:
    assert orjson.loads(end_line(2, {"card": 1}, ["a gap"])) == {
        "end": {"records": 2, "masked": {"card": 1}, "gaps": ["a gap"]}
    }


# ------------------------------------------------------------------------------------------------------------ masking


def masked(payload: object, *paths: str) -> tuple[object, dict[str, int]]:
    masking = Masking([parse_path(path).bind(["order.priced", "other"]) for path in paths])
    one = record(replace(EVENT, data=orjson.dumps(payload)))
    return orjson.loads(masking.mask(one).value or b""), dict(masking.counts)


def test_secrets_are_masked_and_counted_by_path() -> None:
    payload = {"order": {"password": "hunter2hunter2", "total": 5}, "items": [{"api_key": "abcdefgh12345678"}], "n": 1}
    assert masked(payload) == (
        {"order": {"password": "***", "total": 5}, "items": [{"api_key": "***"}], "n": 1},
        {"order.password": 1, "items[].api_key": 1},
    )


def test_chosen_paths_are_masked() -> None:
    payload = {"card": {"number": 4111}, "items": [{"sku": "a"}, {"sku": "b"}]}
    assert masked(payload, "card.number", "items[1].sku", "nowhere.at")[0] == {
        "card": {"number": "***"},
        "items": [{"sku": "a"}, {"sku": "***"}],
    }
    assert masked(payload, "items.sku")[0] == {"card": {"number": 4111}, "items": [{"sku": "***"}, {"sku": "***"}]}
    assert masked(payload, "order.priced.card")[0] == {**payload, "card": "***"}
    assert masked(payload, "other.card")[0] == payload, "a path of another type"


def test_the_input_of_a_join_is_masked_in_each_event() -> None:
    parts = [Part("order.priced", b'{"card":1}'), Part("other", b'{"card":2}')]
    batch = encode_batch(parts, source="/s", event_id="e")
    one = record(replace(EVENT, data=batch, content_type="application/cloudevents-batch+json"))
    found = orjson.loads(Masking([parse_path("other.card").bind(["other"])]).mask(one).value or b"")
    assert [item["data"] for item in found] == [{"card": 1}, {"card": "***"}]


def test_a_payload_without_secrets_keeps_its_bytes() -> None:
    for value in (b'{ "total": 12 }', b"no JSON", b"", None, b"12"):
        assert Masking().mask(record(value=value)).value == value


def test_headers_of_a_foreign_producer_are_masked_and_those_of_the_mesh_are_not() -> None:
    masking = Masking()
    found = masking.mask(
        record(headers=[("Authorization", b"Bearer abcdefgh12345678"), ("ce_id", b"token=abcdefgh12")])
    )
    assert list(found.headers) == [("Authorization", b"***"), ("ce_id", b"token=abcdefgh12")]
    assert masking.counts == {"header Authorization": 1}


def test_a_long_value_is_never_cut() -> None:
    long = {"text": "words of a text " * 70_000, "items": [0] * 1_100_000}
    assert masked(long) == (long, {})


def test_what_is_nested_deeper_than_the_limit_is_masked() -> None:
    payload: object = "a text"
    for _ in range(240):
        payload = [payload]
    assert orjson.dumps(masked(payload)[0]) == b"[" * 200 + b'"***"' + b"]" * 200
