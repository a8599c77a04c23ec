"""Answers to rejected requests and to requests for ended runs."""

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import CANCELLED, REDRIVEN, Event
from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.core.publishing.request_rejection import (
    late_rejections,
    late_request_in,
    parse_late_request,
    rejection_record,
)
from mesh.core.run.effects import DeadLetter, Note
from mesh.core.state.partition_state import Partition
from mesh.core.topology.model import Retention, Topology
from tests.builders import AT_MS, event, topology

ECHO = topology(echo="ask -> answer")


def state(*, ended: bool) -> Partition:
    """A partition with one run that heard request `r1`."""
    found = Partition(ECHO, number=0, partitions=1)
    found.at_ms = AT_MS
    found.apply(event(), 0)
    if ended:
        found.apply(event(CANCELLED, id="c"), 1)
    return found


def answers(found: Partition, came: Event, *, after_ms: int = ECHO.retention.outcomes_ms) -> list[NewRecord]:
    """The answers to a request that comes so long after the last record."""
    found.at_ms += after_ms
    return [record for effect in found.apply(came, 2) for record in late_rejections(effect, found, ECHO)]


def stored(record: NewRecord) -> StoredRecord:
    return StoredRecord(record.topic, 0, 5, AT_MS, record.key, record.value, record.headers)


@pytest.mark.parametrize(
    ("came", "code"),
    [
        (event(), "duplicate_request"),
        (event(data=b'{"other":1}'), "idempotency_conflict"),
        (event(id="r2"), "already_terminal"),
    ],
)
def test_a_request_for_a_run_that_had_ended_is_answered_with_the_ending(came: Event, code: str) -> None:
    (answer,) = answers(state(ended=True), came)
    assert (answer.topic, answer.key) == (ECHO.outcomes, b"run-1")
    late = late_request_in(stored(answer))
    assert late is not None
    assert (late.run_id, late.code, late.ending) == ("run-1", code, "cancelled")
    assert late.message.endswith("; its run had ended cancelled")
    assert answers(state(ended=False), came) == [], "the outcome of an open run is its answer"


@pytest.mark.parametrize("kind", ["outcomes_ms", "inbox_ms"])
def test_a_request_is_not_answered_while_the_outcome_is_kept(kind: str) -> None:
    kept = replace(ECHO.retention, **{"outcomes_ms": -1, "inbox_ms": -1, kind: 5_000})
    mesh = replace(ECHO, retention=kept)

    def count(after_ms: int, mesh: Topology) -> int:
        found = state(ended=True)
        found.at_ms += after_ms
        return sum(len(late_rejections(effect, found, mesh)) for effect in found.apply(event(), 2))

    assert [count(after_ms, mesh) for after_ms in (0, 4_999, 5_000, 9_000)] == [0, 0, 1, 1]
    assert count(10**12, replace(ECHO, retention=Retention(-1, -1))) == 0, "kept forever"


def test_what_is_no_request_is_not_answered() -> None:
    for kind in (CANCELLED, REDRIVEN, "due", "succeeded"):
        assert answers(state(ended=True), event(kind, id="x", task_id="t", agent="echo")) == []
    other = state(ended=True)
    assert late_rejections(Note("duplicate_request", "again", "run-2"), other, ECHO) == []
    assert late_rejections(DeadLetter("d", "schema", "no", b"", b"", (), "", run_id="run-1"), other, ECHO) == []


def test_the_answer_to_a_request_that_opened_no_run_has_no_ending() -> None:
    record = rejection_record("run-9", "bad_deadline", "it is no time", ECHO)
    found = read_event(stored(record))
    assert not isinstance(found, Unreadable)
    assert found.type == REJECTED_TYPE
    assert orjson.loads(found.data) == {"run": "run-9", "code": "bad_deadline", "message": "it is no time"}
    assert late_request_in(stored(record)) is None


JSON = st.recursive(st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=3), st.lists, max_leaves=4)


@given(st.binary(max_size=20) | st.dictionaries(st.sampled_from(["code", "message", "ending"]), JSON).map(orjson.dumps))
def test_reading_is_total(data: bytes) -> None:
    late = parse_late_request(event("outcome", type=REJECTED_TYPE, data=data))
    assert late is None or (late.ending and isinstance(late.code, str) and isinstance(late.message, str))
    assert parse_late_request(event("outcome", type="mesh.run.completed", data=data)) is None
