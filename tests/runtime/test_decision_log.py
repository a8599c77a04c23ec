"""Decisions about failures as the orchestrator's log tells them."""

from typing import Any

import pytest

from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import FAILED, Event, Fault
from mesh.core.protocol.record import StoredRecord
from mesh.core.run.effects import BreakerTransition, DeadLetter, Note, Schedule
from mesh.runtime.decision_log import DecisionLog

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def failure(code: str, traceparent: str = "") -> StoredRecord:
    event = Event("t:failed", "/agents/work", "ask", FAILED, "r-1", b"{}", agent="work", task_id="t")
    event.fault, event.traceparent = Fault(code, "why"), traceparent
    return StoredRecord("mesh.inbox", 0, 7, 1_000, b"r-1", b"{}", event_headers(event))


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    return [(record.__dict__["sentence"], record.__dict__["fields"]) for record in caplog.records]


async def test_a_retry_is_reported_with_its_failure_and_a_wait_that_was_asked_for_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, timer = DecisionLog(), Schedule("r-1", "t:2:due", 1_200, "t", 2)
    log.retry(failure("exception"), timer, 1_000)
    log.retry(failure("later"), timer, 1_000)
    (line,) = told(caplog)
    assert line == (
        "an attempt is repeated",
        {"agent": "work", "run": "r-1", "task": "t", "attempt": 2, "in_ms": 200, "code": "exception"},
    )


async def test_fallbacks_pauses_dead_letters_and_breakers_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    log, cause = DecisionLog(), failure("exception", traceparent=PARENT)
    log.note(cause, Note("fell_back", "'b' is asked in the place of 'a'", "r-1"))
    log.note(cause, Note("late_result", "x", "r-1"))
    log.note(cause, Note("cascade", "the run is paused: cascade", "r-1"))
    log.effect(cause, DeadLetter("d-1", "exception", "boom", b"{}", None, (), "mesh.inbox:0:7", "r-1", "work", "t"))
    log.effect(cause, BreakerTransition("work", "opened", "5 failures in a row", "r-1", "c-1", 1_000))
    assert [sentence for sentence, _ in told(caplog)] == [
        "a fallback was asked",
        "a run was paused",
        "a dead letter was written",
        "the breaker of work is opened",
    ]
    ids = [{name: fields.get(name) for name in ("run", "agent", "task", "trace")} for _, fields in told(caplog)]
    assert ids == [{"run": "r-1", "agent": "work", "task": "t", "trace": PARENT[3:35]}] * 4
    letter = told(caplog)[2][1]
    assert (letter["letter"], letter["reason"], letter["origin"]) == ("d-1", "boom", "mesh.inbox:0:7")
