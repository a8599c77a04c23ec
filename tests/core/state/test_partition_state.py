"""One inbox partition: what is folded, what is remembered, and what does not belong there."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import CANCELLED, NO_USAGE, REQUESTED, Event, Part
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import Record, StoredRecord
from mesh.core.publishing.effect_records import due_record, record_of
from mesh.core.run.effects import DeadLetter, Effect, Finish, Note, PublishTask, Schedule
from mesh.core.state.partition_state import ENDED_OFFSETS_MAX, Partition
from mesh.core.task.result import success_event
from tests.builders import AT_MS, event, record, topology
from tests.playbook import shown

ECHO = topology(echo="ask -> answer", leaves=["ask"])


def partition(number: int = 0, partitions: int = 1) -> Partition:
    return Partition(ECHO, number=number, partitions=partitions)


def lines(effects: list[Effect]) -> list[str]:
    return [shown(effect) for effect in effects]


def answer_to(effects: list[Effect]) -> Event:
    """The answer of the agent whose task is among the effects, over the wire and back."""
    (task,) = (effect for effect in effects if isinstance(effect, PublishTask))
    sent = record_of(task, ECHO)
    got = read_event(StoredRecord(sent.topic, 0, 0, AT_MS, sent.key, sent.value, sent.headers))
    assert isinstance(got, Event)
    return success_event(got, [Part("answer", b"1")], NO_USAGE)


def run_one(state: Partition, run_id: str, offset: int) -> None:
    """A whole run, from request to outcome."""
    effects = state.apply(event(run_id=run_id), offset)
    assert any(isinstance(effect, Finish) for effect in state.apply(answer_to(effects), offset + 1))


# ------------------------------------------------------------------------------------------------------------- the fold


def test_a_run_lives_while_it_is_open_and_is_remembered_when_it_ended() -> None:
    state = partition()
    effects = state.step(record(event(), 7))
    assert lines(effects) == ["leaves ask", "task echo", "deadline at +60000 ms"]
    assert (list(state.runs), state.offset) == (["run-1"], 8)
    effects = state.step(record(answer_to(effects), 8))
    assert lines(effects) == ["leaves answer", "ended completed"]
    assert (list(state.runs), state.ended["run-1"].ending, state.offset) == ([], "completed", 9)


HOUR_MS = 3_600_000


def test_time_goes_on_when_the_clock_of_the_log_is_set_back() -> None:
    state = partition()
    state.step(record(event(), 0))
    state.step(record(event(id="r2", run_id="run-2"), 1, timestamp=AT_MS + 1_000))
    state.step(record(event(id="r3", run_id="run-3"), 2, timestamp=AT_MS + 1_500 - HOUR_MS))
    assert (state.at_ms, state.ahead_ms) == (AT_MS + 1_000, HOUR_MS - 500)
    effects = state.step(record(event(id="r4", run_id="run-4"), 3, timestamp=AT_MS + 2_000 - HOUR_MS))
    assert (state.at_ms, state.time_at(AT_MS + 2_000 - HOUR_MS)) == (AT_MS + 1_500, AT_MS + 1_500)
    assert "deadline at +61500 ms" in lines(effects)


def test_a_timer_that_waits_does_not_wait_longer_when_the_clock_of_the_log_is_set_back() -> None:
    state = partition()
    state.step(record(event(), 0))
    state.step(record(event(id="r2", run_id="run-2"), 1, timestamp=AT_MS + 59_000))
    state.step(record(event(id="r3", run_id="run-3"), 2, timestamp=AT_MS + 59_000 - HOUR_MS))
    due = due_record(Schedule("run-1", "run-1:deadline", AT_MS + 60_000), 0, ECHO)
    at_ms = AT_MS + 60_100 - HOUR_MS
    effects = state.step(StoredRecord("mesh.inbox", 0, 3, at_ms, b"run-1", due.value, due.headers))
    assert lines(effects) == ["ended stopped"]


def test_a_deadline_that_a_request_names_counts_from_the_clock_that_was_set_back() -> None:
    state = partition()
    state.step(record(event(), 0))
    at_ms = AT_MS - HOUR_MS
    asked = event(id="r2", run_id="run-2", expiry_ms=at_ms + 5_000)
    state.step(record(asked, 1, timestamp=at_ms))
    assert state.runs["run-2"].deadline_ms == AT_MS + 5_000


def test_a_clock_that_is_put_right_again_leaves_nothing_behind() -> None:
    state = partition()
    state.step(record(event(), 0))
    state.step(record(event(id="r2", run_id="run-2"), 1, timestamp=AT_MS - HOUR_MS))
    state.step(record(event(id="r3", run_id="run-3"), 2, timestamp=AT_MS + 10))
    assert (state.at_ms, state.ahead_ms) == (AT_MS + 10, 0)


def test_an_unopened_file_leaves_no_trace() -> None:
    state = partition()
    assert lines(state.step(record(event(CANCELLED)))) == ["note unknown_run"]
    assert (list(state.runs), list(state.ended)) == ([], [])


def test_the_same_records_make_the_same_state_and_effects() -> None:
    first, second = partition(), partition()
    effects = first.step(record(event()))
    inbox = [record(event()), record(answer_to(effects), 1), record(event(run_id="run-2"), 2)]
    first.step(inbox[1])
    first.step(inbox[2])
    for stored in inbox:
        second.step(stored)
    assert (first.runs, first.ended, first.offset) == (second.runs, second.ended, second.offset)


# --------------------------------------------------------------------------------------------- the memory of ended runs


@pytest.mark.parametrize(
    ("late", "line"),
    [
        ({}, "note duplicate_request"),
        ({"data": b"2"}, "dead idempotency_conflict"),
        ({"id": "r2"}, "dead already_terminal"),
        ({"kind": "succeeded"}, "note late_result"),
        ({"kind": "failed"}, "note late_result"),
        ({"kind": "due"}, "note late_timer"),
        ({"kind": "cancelled"}, "note already_terminal"),
    ],
)
def test_what_comes_for_a_run_that_ended_starts_nothing(late: dict[str, str], line: str) -> None:
    state = partition()
    run_one(state, "run-1", 0)
    assert lines(state.step(record(event(**{"kind": REQUESTED, **late}), 2))) == [line]
    assert state.runs == {}


def test_an_ended_run_is_forgotten_once_the_window_has_passed_it() -> None:
    state = partition()
    run_one(state, "run-1", 0)
    run_one(state, "run-2", ENDED_OFFSETS_MAX)
    assert list(state.ended) == ["run-1", "run-2"]
    run_one(state, "run-3", ENDED_OFFSETS_MAX + 1)
    assert list(state.ended) == ["run-2", "run-3"]
    run_one(state, "run-4", 3 * ENDED_OFFSETS_MAX)
    assert list(state.ended) == ["run-4"]


def test_a_request_that_comes_after_the_window_opens_its_run_again() -> None:
    state = partition()
    run_one(state, "run-1", 0)
    run_one(state, "run-2", 2 * ENDED_OFFSETS_MAX)
    run_one(state, "run-1", 2 * ENDED_OFFSETS_MAX + 2)
    assert list(state.ended) == ["run-2", "run-1"]
    run_one(state, "run-3", 5 * ENDED_OFFSETS_MAX)
    assert list(state.ended) == ["run-3"]


def test_the_memory_is_no_larger_than_the_window() -> None:
    state = partition()
    step = ENDED_OFFSETS_MAX // 10
    for n in range(50):
        run_one(state, f"run-{n}", n * step)
    assert len(state.ended) == 11
    assert len(state._ended_order) == 11


# ------------------------------------------------------------------------------------------- what does not belong there


def misplaced(state: Partition, stored: Record) -> str:
    """The reason code of the dead letter that a record becomes, with its bytes untouched."""
    (letter,) = state.step(stored)
    assert isinstance(letter, DeadLetter)
    assert (letter.value, letter.key, list(letter.headers)) == (stored.value, stored.key, list(stored.headers))
    assert letter.message
    assert state.runs == {}
    return letter.code


def test_a_record_without_a_value_is_a_dead_letter() -> None:
    assert misplaced(partition(), record(event(), value=None)) == "empty_value"


def test_a_record_that_is_no_event_is_a_dead_letter() -> None:
    assert misplaced(partition(), record(event(), headers=[("x", b"y")])) == "not_cloudevents"


@pytest.mark.parametrize("kind", ["task", "outcome", "called", ""])
def test_a_kind_that_has_no_place_in_the_inbox_is_a_dead_letter(kind: str) -> None:
    assert misplaced(partition(), record(event(kind))) == "unknown_kind"


@pytest.mark.parametrize("key", [None, b"", b"run-2", b"\xff" * 1_000])
def test_a_key_that_is_not_the_run_id_is_a_dead_letter(key: bytes | None) -> None:
    assert misplaced(partition(), record(event(), key=key)) == "key_mismatch"


@pytest.mark.parametrize("id", ["", " ", "a b", "ä", "x" * 257, "a\nb"])
def test_an_event_id_that_is_none_is_a_dead_letter(id: str) -> None:
    assert misplaced(partition(), record(event("succeeded", id=id))) == "bad_id"


@pytest.mark.parametrize("id", ["", "a\nb", "a\0b", "x" * 1_025])
def test_a_request_whose_id_cloudevents_does_not_allow_is_a_dead_letter(id: str) -> None:
    assert misplaced(partition(), record(event(id=id))) == "bad_id"


@pytest.mark.parametrize("run_id", ["", " ", "a b", "ä", "x" * 129])
def test_a_run_id_that_is_none_is_a_dead_letter(run_id: str) -> None:
    assert misplaced(partition(), record(event(run_id=run_id))) == "bad_id"


def test_a_run_id_as_long_as_allowed_is_stopped_by_its_deadline() -> None:
    state = partition()
    run_id = "x" * 128
    effects = state.step(record(event(run_id=run_id)))
    (timer,) = (effect for effect in effects if isinstance(effect, Schedule))
    due = due_record(timer, timer.due_ms, ECHO)
    assert due.value is not None
    effects = state.step(StoredRecord(due.topic, 0, 1, timer.due_ms, due.key, due.value, due.headers))
    assert lines(effects) == ["ended stopped"]


def test_an_answer_whose_id_is_beyond_all_measure_is_a_dead_letter() -> None:
    assert misplaced(partition(), record(event("succeeded", id="x" * 257))) == "bad_id"


@pytest.mark.parametrize("id", ["x" * 1_024, "partition:1/offset:24", "a b", "ä"])
def test_a_request_may_have_every_id_that_cloudevents_allows(id: str) -> None:
    effects = partition().step(record(event(id=id)))
    assert "task echo" in lines(effects)
    (task,) = (effect.event for effect in effects if isinstance(effect, PublishTask))
    assert (task.cause_id, len(task.task_id)) == (id, 32)


@pytest.mark.parametrize(
    "name",
    ["type", "source", "subject", "content_type", "time", "cause_id", "origin", "traceparent", "tracestate"],
)
def test_a_request_has_attributes_of_at_most_1024_characters(name: str) -> None:
    begin = "application/json;" if name == "content_type" else ""
    texts = {"traceparent": "00-1-2-00", name: begin.ljust(1_025, "x")}
    (effect,) = partition().step(record(event(**texts)))
    assert isinstance(effect, DeadLetter)
    assert (effect.code, "1025 characters; at most 1024" in effect.message) == ("too_large", True)
    taken = partition().step(record(event(**{**texts, name: begin.ljust(1_024, "x")})))
    assert not any(isinstance(effect, DeadLetter) and effect.code == "too_large" for effect in taken)


def test_a_second_request_for_an_open_run_is_looked_at_as_closely() -> None:
    state = partition()
    state.step(record(event()))
    assert lines(state.step(record(event(id="a\nb")))) == ["dead bad_id"]


@pytest.mark.parametrize("kind", [REQUESTED, "succeeded", "due", "cancelled"])
def test_a_record_in_another_partition_than_its_key_says_is_a_dead_letter(kind: str) -> None:
    home = partition_of(b"run-1", 6)
    stored = record(event(kind))
    assert misplaced(partition((home + 1) % 6, 6), stored) == "misrouted"
    state = partition(home, 6)
    assert "dead misrouted" not in lines(state.step(stored))


def test_a_dead_letter_names_the_place_where_its_record_lies() -> None:
    (letter,) = partition().step(record(event(), 17, key=b"x", partition=3))
    assert isinstance(letter, DeadLetter)
    assert (letter.origin, letter.run_id) == ("mesh.inbox:3:17", "run-1")


HEADERS = [name for name, _ in event_headers(replace(event("succeeded"), task_id="t", cause_id="c"))]


@given(
    st.lists(st.tuples(st.sampled_from([*HEADERS, "mesh-error-code", "ce_meshusd"]), st.binary(max_size=8))),
    st.none() | st.binary(max_size=8),
    st.none() | st.binary(max_size=8),
    st.booleans(),
)
def test_no_bytes_whatever_stop_a_partition(
    headers: list[tuple[str, bytes]], key: bytes | None, value: bytes | None, begun: bool
) -> None:
    state = partition()
    state.step(record(event()))
    good = dict(event_headers(event("succeeded", agent="echo", task_id=next(iter(state.runs["run-1"].open)))))
    mixed = {**good, **dict(headers)} if begun else dict(headers)
    effects = state.step(
        StoredRecord("mesh.inbox", 0, 1, AT_MS, b"run-1" if begun else key, value, list(mixed.items()))
    )
    assert effects
    assert all(effect.message for effect in effects if isinstance(effect, Note | DeadLetter))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"source": "/evil\x1b[2J"}, "bad_string"),
        ({"subject": "a\u202eb"}, "bad_string"),
        ({"subject": "x" * 1_025}, "too_large"),
        ({"content_type": "text/plain"}, "unparseable"),
        ({"id": "a\nb"}, "bad_id"),
    ],
)
def test_a_request_on_the_inbox_passes_the_gate_of_the_ingress_topics(change: dict[str, Any], code: str) -> None:
    """A producer with the right to write there did not pass it: what the gate would refuse opens no run."""
    state, asked = partition(), event(REQUESTED, type="ask")
    (letter,) = state.step(record(replace(asked, **change)))
    assert isinstance(letter, DeadLetter)
    assert (letter.code, len(state.runs)) == (code, 0)
    assert not isinstance(state.step(record(asked, 1))[0], DeadLetter)
