"""Dead letters are read as what they are, whoever wrote them, and come back from an export byte for byte."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.dead_letters.letter import Origin, letter_from, letter_json, letter_of
from mesh.core.protocol.event import BATCH, Part, encode_batch
from mesh.core.protocol.record import Headers, StoredRecord
from mesh.core.publishing.effect_records import dead_letter
from mesh.core.run.effects import DeadLetter
from tests.builders import topology

MESH = topology(plan="ask -> plan.ready")


def stored(headers: Headers, value: bytes | None = b"{}", key: bytes | None = b"k") -> StoredRecord:
    return StoredRecord("mesh.dead", 1, 7, 1_000, key, value, headers)


def of_the_mesh(headers: Headers = (), **fields: Any) -> StoredRecord:
    given: dict[str, Any] = {
        "id": "d1",
        "code": "exception",
        "message": "it was glass",
        "value": b"{}",
        "key": b"run-1",
        "headers": headers,
        "origin": "mesh.tasks.plan:2:9",
        "run_id": "run-1",
        "agent": "plan",
        "task_id": "t1",
        "attempts": 3,
        "cls": "builtins.ValueError",
        "stack": "Traceback",
    }
    record = dead_letter(DeadLetter(**{**given, **fields}), MESH)
    return stored(record.headers, record.value, record.key)


def test_a_letter_of_the_mesh_says_everything() -> None:
    letter = letter_of(of_the_mesh([("ce_type", b"ask"), ("content-type", b"application/json"), ("mine", b"1")]))
    assert (letter.id, letter.dialect, letter.reason, letter.message) == ("d1", "mesh", "exception", "it was glass")
    assert (letter.agent, letter.run_id, letter.task_id, letter.attempts) == ("plan", "run-1", "t1", 3)
    assert (letter.cls, letter.stack, letter.origin) == (
        "builtins.ValueError",
        "Traceback",
        Origin("mesh.tasks.plan", 2, 9),
    )
    assert (letter.type, letter.kind, letter.header("mine"), letter.position) == ("ask", "", "1", "mesh.dead:1:7")
    assert str(letter.origin) == "mesh.tasks.plan:2:9"


def test_the_headers_of_a_record_that_had_been_a_dead_letter_before_are_all_kept() -> None:
    before = of_the_mesh([("ce_type", b"ask")], id="older", run_id="run-0").headers
    letter = letter_of(of_the_mesh(before, run_id="", agent="", task_id=""))
    assert letter.headers == list(before)
    assert (letter.id, letter.run_id, letter.agent) == ("d1", "", ""), "what the older letter says is not believed"
    assert letter_of(of_the_mesh([("__connect.errors.topic", b"x")])).headers[0] == ("__connect.errors.topic", b"x"), (
        "and neither is anything else taken from it"
    )


def test_a_letter_without_origin_stack_or_task_is_split_all_the_same() -> None:
    letter = letter_of(of_the_mesh([("a", b"1")], origin="", cls="", stack="", agent="", task_id=""))
    assert (letter.headers, letter.origin, letter.stack) == ([("a", b"1")], None, "")


FOREIGN = {
    "share group": [
        *[("__dlq.errors.topic", b"orders"), ("__dlq.errors.partition", b"2"), ("__dlq.errors.offset", b"41")],
        *[("__dlq.errors.message", b"why"), ("__dlq.errors.delivery.count", b"5"), ("__dlq.errors.group", b"g")],
    ],
    "streams": [
        *[("__streams.errors.topic", b"orders"), ("__streams.errors.partition", b"2")],
        *[("__streams.errors.offset", b"41"), ("__streams.errors.message", b"why")],
        *[("__streams.errors.exception", b"a.b.Broken"), ("__streams.errors.stacktrace", b"at a.b")],
    ],
    "connect": [
        *[("__connect.errors.topic", b"orders"), ("__connect.errors.partition", b"2")],
        *[("__connect.errors.offset", b"41"), ("__connect.errors.exception.message", b"why")],
        *[("__connect.errors.exception.class.name", b"a.b.Broken"), ("__connect.errors.stage", b"VALUE_CONVERTER")],
        ("__connect.errors.exception.stacktrace", b"at a.b"),
    ],
    "spring": [
        *[("kafka_dlt-original-topic", b"orders"), ("kafka_dlt-original-partition", b"\0\0\0\2")],
        *[("kafka_dlt-original-offset", b"\0\0\0\0\0\0\0\x29"), ("kafka_dlt-exception-message", b"why")],
        *[("kafka_dlt-exception-fqcn", b"x.Wrapper"), ("kafka_dlt-exception-cause-fqcn", b"a.b.Broken")],
        ("kafka_dlt-exception-stacktrace", b"at a.b"),
    ],
}


@pytest.mark.parametrize("dialect", FOREIGN)
def test_letters_of_other_systems_are_read(dialect: str) -> None:
    letter = letter_of(stored([("mine", b"1"), *FOREIGN[dialect], ("also", b"2")]))
    assert (letter.dialect, letter.origin, letter.message) == (dialect, Origin("orders", 2, 41), "why")
    assert letter.headers == [("mine", b"1"), ("also", b"2")]
    if dialect != "share group":
        assert (letter.cls, letter.reason, letter.stack) == ("a.b.Broken", "Broken", "at a.b")
    assert letter.id == letter_of(stored(FOREIGN[dialect])).id, "its place makes its id"
    assert letter.id != letter_of(stored(FOREIGN[dialect])._replace(offset=8)).id


@given(
    st.lists(st.tuples(st.sampled_from([h[0] for hs in FOREIGN.values() for h in hs] + ["mesh-dlq-id"]), st.binary())),
    st.none() | st.binary(),
)
def test_no_bytes_make_reading_fail(headers: list[tuple[str, bytes]], value: bytes | None) -> None:
    letter = letter_of(stored(headers, value))
    assert letter.id
    assert letter.payloads() is not None


def test_secrets_in_what_others_wrote_are_not_shown() -> None:
    stack = b"at a.b: password=hunter2"
    letter = letter_of(stored([("__streams.errors.stacktrace", stack), ("__streams.errors.message", stack)]))
    assert "hunter2" not in letter.stack + letter.message
    assert letter.record.headers[0] == ("__streams.errors.stacktrace", stack)


def test_a_header_without_a_value_is_no_trouble() -> None:
    headers: Any = [("mesh-dlq-id", None), ("mine", None)]
    assert letter_of(stored(headers)).header("mine") == ""


@given(
    st.none() | st.binary(),
    st.none() | st.binary(),
    st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.none() | st.binary())),
)
def test_an_export_comes_back_byte_for_byte(key: bytes | None, value: bytes | None, headers: Any) -> None:
    letter = letter_of(stored(headers, value, key))
    again, changed = letter_from(orjson.loads(orjson.dumps(letter_json(letter))))
    assert not changed
    assert (again.key, again.value, list(again.record.headers)) == (key, value, headers)
    assert (again.id, again.position, again.at_ms) == (letter.id, letter.position, letter.at_ms)


def test_an_export_is_read_as_kcat_writes_it_and_a_change_is_detected() -> None:
    line = letter_json(letter_of(stored([("a", b"\xff")], b'{"n":1}')))
    assert (line["topic"], line["partition"], line["offset"], line["ts"]) == ("mesh.dead", 1, 7, 1_000)
    assert (line["key"], line["payload"]) == ("k", '{"n":1}')
    assert line["headers"] == [{"name": "a", "value_base64": "/w=="}]
    again, changed = letter_from({**line, "payload": '{"n":2}'})
    assert (again.value, changed) == (b'{"n":2}', True)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ([], "JSON object"),
        ({}, "`topic`"),
        ({"topic": "t", "partition": True, "offset": 1, "ts": 1}, "`topic`"),
        ({"topic": "t", "partition": 0, "offset": 1, "ts": 1}, "`headers`"),
        ({"topic": "t", "partition": 0, "offset": 1, "ts": 1, "headers": [{}]}, "`headers`"),
        ({"topic": "t", "partition": 0, "offset": 1, "ts": 1, "headers": [], "payload": 1}, "`payload`"),
        ({"topic": "t", "partition": 0, "offset": 1, "ts": 1, "headers": [], "payload_base64": "?"}, "base64"),
    ],
)
def test_what_is_no_exported_letter_says_why(found: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        letter_from(found)


def test_payloads_are_found_by_type_those_of_a_join_too() -> None:
    parts = encode_batch([Part("stock", b'{"n":1}'), Part("price", b'{"n":2}')], source="/s", event_id="e")
    joined = letter_of(of_the_mesh([("ce_type", b"mesh.join"), ("content-type", BATCH.encode())], value=parts))
    assert joined.payloads() == {"stock": {"n": 1}, "price": {"n": 2}}
    assert letter_of(of_the_mesh([("ce_type", b"ask")], value=b'{"n":3}')).payloads() == {"ask": {"n": 3}}
    assert letter_of(of_the_mesh([("ce_type", b"ask")], value=b"\xff")).payloads() == {"ask": None}
