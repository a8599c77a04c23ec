import threading

import pytest

from mesh.adapters.tracing.span_ids import (
    IDS_KEPT_MAX,
    SpanIds,
    attempt_of,
    letter_of,
    previous_attempt,
    span_id_of,
    trace_id_of,
)
from mesh.core.protocol.event import FAILED, SUCCEEDED
from tests.adapters.tracing.kit import TASK_EVENT


def test_ids_follow_from_names_alone() -> None:
    assert trace_id_of("r1") == trace_id_of("r1") != trace_id_of("r2")
    assert len(trace_id_of("r1")) == 32
    assert 0 < span_id_of("t1:1") == span_id_of("t1:1") < 1 << 64
    assert span_id_of("t1:1") != span_id_of("t1:2")


@pytest.mark.parametrize(
    ("id", "attempt"), [(f"t1:2:{SUCCEEDED}", "t1:2"), (f"t1:2:{FAILED}", "t1:2"), ("q1", ""), ("", ""), ("l:r1", "")]
)
def test_the_attempt_of_an_answer(id: str, attempt: str) -> None:
    assert attempt_of(id) == attempt


@pytest.mark.parametrize(
    ("id", "letter"), [("abc:r1", "abc"), ("abc:r12", "abc"), ("abc:rx", ""), ("abc", ""), ("", "")]
)
def test_the_letter_of_a_redrive(id: str, letter: str) -> None:
    assert letter_of(id) == letter


def test_the_first_attempt_has_none_before_it() -> None:
    assert previous_attempt(TASK_EVENT) == ""


def test_an_id_is_given_as_asked_for_once() -> None:
    ids = SpanIds()
    ids.ask(7, 9)
    assert (ids.generate_trace_id(), ids.generate_span_id()) == (9, 7)
    assert len({ids.generate_span_id() for _ in range(100)} - {0, 7}) == 100
    assert ids.generate_trace_id() not in (0, 9)
    ids.ask(7)
    assert ids.generate_span_id() != 7


def test_only_the_latest_ids_are_remembered() -> None:
    ids = SpanIds()
    for n in range(1, IDS_KEPT_MAX + 2):
        ids.ask(n)
    ids.ask(1)
    assert ids.generate_span_id() == 1


def test_another_thread_does_not_take_an_id_that_was_asked_for() -> None:
    ids, taken = SpanIds(), []
    ids.ask(7, 9)
    thread = threading.Thread(target=lambda: taken.append(ids.generate_span_id()))
    thread.start()
    thread.join()
    assert taken != [7]
    assert ids.generate_span_id() == 7
