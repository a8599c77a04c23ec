"""The records of effects: tasks, egress, outcomes, timers, dead letters, and replacements of refused records."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.protocol.codec import internal_headers, read_event
from mesh.core.protocol.event import DUE, EGRESS, OUTCOME, STACK_BYTES_MAX, Event, derive_id
from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.core.publishing.effect_records import (
    DEAD_LETTER_HEADERS,
    OUTCOME_FIELDS,
    cap_stack,
    dead_letter,
    due_record,
    outcome_body,
    record_of,
)
from mesh.core.run.dead_letter import dead_record
from mesh.core.run.effects import DeadLetter, Finish, PublishEvent, PublishTask, Schedule
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Draft, Failure, Result, Run, Unrouted
from mesh.core.state.partition_state import RULES
from mesh.core.topology.model import Limits, Topology
from tests.core.samples import AT_MS, task

TOPOLOGY = Topology("desk", "0" * 16, Limits(), {}, {})


def again(record: NewRecord) -> Event:
    """Read a new record back."""
    found = read_event(StoredRecord(record.topic, 0, 0, AT_MS, record.key, record.value, record.headers))
    assert isinstance(found, Event)
    return found


def ended_run() -> Run:
    run = Run("r1", "order.placed", "d" * 16, AT_MS, AT_MS + 60_000)
    run.subject, run.ending, run.ended_ms = "o-1", "partial", AT_MS + 1_500
    run.requests, run.tasks, run.usd_micros, run.tokens, run.refused = ("o-1", "0b1c"), 3, 1_500_000, 42, 7
    run.results = (Result("x1", "order.rejected", "fraud", b'{ "why": 1.50 }'),)
    run.refusals = (Refusal("depth", "b", ("a",), 1, 2, "depth: a > b is 2 hops deep, at most 1"),)
    run.failures = (Failure("c", "t9", 3, "exception", "no", ("c",)),)
    run.starved = ("join: got a; missing b",)
    run.unrouted = (Unrouted("odd", "a", "odd from a: no agent hears it", 2),)
    run.drafts = (Draft("draft", "b", "l1", b'{"n":1}'), Draft("draft", "c", "l2", b"", omitted=True))
    run.overspent = ("tokens: 42 used, at most 40",)
    run.traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    return run


# ---------------------------------------------------------------------------------------------------------- effects


def test_a_task_goes_to_its_agents_topic_under_its_ordering_key() -> None:
    record = record_of(PublishTask(task(), b"o-1"), TOPOLOGY)
    assert (record.topic, record.key, record.value) == ("mesh.tasks.pricing", b"o-1", task().data)
    assert record.headers == internal_headers(task())


@pytest.mark.parametrize(("key", "expected"), [(None, b"r1"), (b"o-1", b"o-1"), (b"", b"")])
def test_an_egress_event_goes_to_its_topic_under_its_key_or_its_run(key: bytes | None, expected: bytes) -> None:
    event = Event("x1", "/agents/fraud", "order.rejected", EGRESS, "r1", b"{}", AT_MS)
    record = record_of(PublishEvent(event, "orders.decided", key), TOPOLOGY)
    assert (record.topic, record.key, record.value) == ("orders.decided", expected, b"{}")


def test_an_outcome_reports_everything_about_its_run() -> None:
    record = record_of(Finish(ended_run(), "t9:3", AT_MS + 1_500), TOPOLOGY)
    assert (record.topic, record.key) == ("mesh.outcomes", b"r1")
    event = again(record)
    assert (event.id, event.type, event.kind) == (derive_id("r1", "outcome"), "mesh.run.partial", OUTCOME)
    assert (event.run_id, event.cause_id, event.subject) == ("r1", "t9:3", "o-1")
    assert (event.usage, event.traceparent) == ((1_500_000, 42), ended_run().traceparent)
    assert orjson.loads(event.data) == {
        "run": "r1",
        "request": {"ids": ["o-1"], "type": "order.placed", "fingerprints": ["0b1c"]},
        "ending": "partial",
        "results": [{"type": "order.rejected", "id": "x1", "agent": "fraud", "data": {"why": 1.5}}],
        "refused": 7,
        "refusals": [
            {
                "code": "depth",
                "agent": "b",
                "path": ["a"],
                "limit": 1,
                "actual": 2,
                "message": "depth: a > b is 2 hops deep, at most 1",
            }
        ],
        "failures": [
            {"agent": "c", "task_id": "t9", "attempts": 3, "code": "exception", "message": "no", "path": ["c"]}
        ],
        "drafts": [
            {"type": "draft", "agent": "b", "letter": "l1", "data": {"n": 1}},
            {"type": "draft", "agent": "c", "letter": "l2", "omitted": "state_bytes_max"},
        ],
        "starved": ["join: got a; missing b"],
        "unrouted": [{"type": "odd", "agent": "a", "message": "odd from a: no agent hears it", "times": 2}],
        "overspent": ["tokens: 42 used, at most 40"],
        "tasks": 3,
        "used": {"usd": 1.5, "tokens": 42},
        "opened": "2026-11-20T12:00:00.123Z",
        "ended": "2026-11-20T12:00:01.623Z",
        "generation": 0,
        "redrives": [],
        "rules": RULES,
        "took_ms": 1500,
    }


def test_the_fields_of_an_outcome_are_those_documented_in_that_order() -> None:
    assert list(outcome_body(ended_run())) == [name for name, _ in OUTCOME_FIELDS]


def test_a_payload_in_an_outcome_is_embedded_as_it_is_and_shown_as_text_where_it_is_no_json() -> None:
    run = ended_run()
    assert b'"data":{ "why": 1.50 }' in orjson.dumps(outcome_body(run))
    run.results = (Result("x1", "t", "a", b"not \xff json"),)
    assert orjson.loads(orjson.dumps(outcome_body(run)))["results"] == [
        {"type": "t", "id": "x1", "agent": "a", "text": "not \\xff json"}
    ]


@pytest.mark.parametrize(
    ("timer", "attempt"), [(Schedule("r1", "t1:2:due", 5, "t1", 2), 2), (Schedule("r1", "r1:deadline", 5), 1)]
)
def test_a_due_timer_enters_the_inbox_of_its_run(timer: Schedule, attempt: int) -> None:
    record = due_record(timer, AT_MS, TOPOLOGY)
    assert (record.topic, record.key) == ("mesh.inbox", b"r1")
    event = again(record)
    assert (event.id, event.kind, event.run_id) == (timer.timer_id, DUE, "r1")
    assert (event.task_id, event.attempt) == (timer.task_id, attempt)
    assert due_record(timer, AT_MS, TOPOLOGY) == record


# ------------------------------------------------------------------------------------------------------ dead letters

HEADERS = st.lists(
    st.tuples(st.text(max_size=8) | st.sampled_from([n for n, _ in DEAD_LETTER_HEADERS]), st.none() | st.binary()),
    max_size=6,
)


@given(HEADERS, st.none() | st.binary(), st.none() | st.binary())
def test_a_dead_letter_keeps_value_key_and_headers_byte_for_byte(
    headers: list[tuple[str, Any]], key: bytes | None, value: bytes | None
) -> None:
    """Binary headers, headers without a value, headers of another dead letter queue, a record without a value."""
    poison = StoredRecord("orders.placed", 3, 17, AT_MS, key, value, headers)
    letter = dead_letter(dead_record(poison, "unparseable", "not JSON"), TOPOLOGY)
    assert (letter.topic, letter.key, letter.value) == ("mesh.dead", key, value)
    assert list(letter.headers[: len(headers)]) == headers
    added = dict(letter.headers[len(headers) :])
    assert added == {
        "__dlq.errors.topic": b"orders.placed",
        "__dlq.errors.partition": b"3",
        "__dlq.errors.offset": b"17",
        "__dlq.errors.delivery.count": b"1",
        "__dlq.errors.message": b"not JSON",
        "mesh-dlq-id": derive_id("dead", "orders.placed:3:17").encode(),
        "mesh-dlq-reason": b"unparseable",
    }
    assert len(letter.headers) == len(headers) + len(added), "each header once, so that the last of a name is ours"


def test_a_dead_task_says_whose_it_was_and_why() -> None:
    dead = DeadLetter(
        "d1",
        "exception",
        "it \ud800 broke",
        b"{}",
        b"r1",
        (("ce_id", b"t1:3"),),
        "mesh.tasks.pricing:0:5",
        "r1",
        "pricing",
        "t1",
        3,
        "builtins.ValueError",
        "Traceback …",
    )
    added = dict(dead_letter(dead, TOPOLOGY).headers)
    assert added["mesh-dlq-run"] == b"r1"
    assert added["mesh-dlq-agent"] == b"pricing"
    assert added["mesh-dlq-task"] == b"t1"
    assert added["__dlq.errors.delivery.count"] == b"3"
    assert added["__dlq.errors.message"] == b"it ? broke"
    assert added["__connect.errors.exception.class.name"] == b"builtins.ValueError"
    assert added["__connect.errors.exception.stacktrace"] == "Traceback …".encode()
    assert set(added) - {"ce_id"} == {name for name, _ in DEAD_LETTER_HEADERS} - {"mesh-dlq-omitted"}


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("", {}),
        ("mesh.inbox", {"topic": b"mesh.inbox"}),
        ("a:b:0:5", {"topic": b"a:b", "partition": b"0", "offset": b"5"}),
    ],
)
def test_coordinates_that_are_not_known_are_left_out(origin: str, expected: dict[str, bytes]) -> None:
    dead = DeadLetter("d1", "x", "m", b"", None, (), origin)
    found = {name: value for name, value in dead_letter(dead, TOPOLOGY).headers if name.startswith("__dlq")}
    named = {f"__dlq.errors.{name}": value for name, value in expected.items()}
    assert found == {**named, "__dlq.errors.delivery.count": b"1", "__dlq.errors.message": b"m"}


@pytest.mark.parametrize("stack", ["x" * 20_000, "ä" * 20_000, "🙂" * 20_000, "x" * (STACK_BYTES_MAX + 1)])
def test_a_stack_is_cut_to_its_end_and_says_so(stack: str) -> None:
    cut = cap_stack(stack)
    raw = cut.encode()
    assert STACK_BYTES_MAX - 4 < len(raw) <= STACK_BYTES_MAX
    assert cut.startswith(f"[cut: the end of {len(stack.encode())} bytes]\n")
    assert cut.endswith(stack[-100:])
    assert cap_stack(cut) == cut


def test_a_short_stack_stays_as_it_is() -> None:
    assert cap_stack("x" * STACK_BYTES_MAX) == "x" * STACK_BYTES_MAX
