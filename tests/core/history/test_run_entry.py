"""The index entry of a run, folded from its records in any parts."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.history.run_entry import GAP_MAX, SPANS_MAX, RunEntry
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import FAILED, OUTCOME, REQUESTED, SUCCEEDED, Event, Usage
from mesh.core.protocol.record import Record
from mesh.core.publishing.request_rejection import rejection_record
from tests.builders import event, record, topology

BODY: dict[str, Any] = {
    "ending": "failed",
    "request": {"type": "ask"},
    "opened": "2026-11-20T12:00:00.000Z",
    "ended": "2026-11-20T12:00:02.500Z",
    "tasks": 3,
    "used": {"usd": 0.25, "tokens": 7},
    "refusals": [{"code": "visits", "agent": "a"}],
    "failures": [{"code": "timeout", "agent": "b"}],
    "results": [{"agent": "c", "type": "x", "id": "1", "data": {}}],
}


def outcome(offset: int = 4, **changes: Any) -> tuple[Record, Event]:
    found = event(OUTCOME, type="mesh.run.failed", subject="s-1", data=orjson.dumps({**BODY, **changes}))
    stored = record(found, offset, topic="mesh.outcomes")
    return stored, found


def taken(entry: RunEntry, offset: int, kind: str, **fields: Any) -> None:
    stored = record(event(kind, **fields), offset)
    entry.take(stored, read_event(stored))


def test_the_inbox_tells_requests_agents_and_places() -> None:
    entry = RunEntry("r")
    taken(entry, 3, REQUESTED, id="q1", type="ask", subject="s-1", at_ms=50)
    taken(entry, 5, SUCCEEDED, agent="a", task_id="t1")
    taken(entry, 9, FAILED, agent="b", task_id="t2")
    taken(entry, 9 + GAP_MAX + 1, REQUESTED, id="q2", type="other", subject="s-2")
    assert (entry.type, entry.subject, entry.requests) == ("ask", "s-1", ("q1", "q2"))
    assert entry.agents == ("a", "b")
    assert entry.inbox == [(3, 9), (10 + GAP_MAX, 10 + GAP_MAX)]
    assert entry.ended is None


def test_an_unreadable_record_has_only_its_place() -> None:
    entry = RunEntry("r")
    entry.take(record(event(REQUESTED), 7), Unreadable("bad_header", "x"))
    assert (entry.inbox, entry.requests) == ([(7, 7)], ())


def test_the_outcome_tells_how_it_ended() -> None:
    entry = RunEntry("r")
    assert entry.take_outcome(*outcome())
    run = entry.ended
    assert run is not None
    assert (run.state, run.type, run.tasks, run.took_ms) == ("failed", "ask", 3, 2_500)
    assert (run.codes, run.used) == (("visits", "timeout"), Usage(250_000, 7))
    assert entry.agents == ("b", "c")
    assert entry.outcomes == [(4, 4)]


def test_an_outcome_of_an_earlier_generation_does_not_count() -> None:
    entry = RunEntry("r")
    entry.take_outcome(*outcome(4, generation=1, ending="completed"))
    entry.take_outcome(*outcome(5, generation=0))
    assert entry.ended is not None
    assert entry.ended.state == "completed"
    assert entry.outcomes == [(4, 5)]


def test_the_answer_to_a_late_request_names_the_ending() -> None:
    mesh = topology(a="ask -> answer")
    made = rejection_record("r", "duplicate_request", "late", mesh, ending="completed")
    stored = replace_record(made.value or b"", made.headers)
    found = read_event(stored)
    assert isinstance(found, Event)
    entry = RunEntry("r")
    assert entry.take_outcome(stored, found)
    assert (entry.late, entry.ended) == ("completed", None)
    refused = rejection_record("r", "bad_id", "no", mesh)
    stored = replace_record(refused.value or b"", refused.headers)
    other = read_event(stored)
    assert isinstance(other, Event)
    assert not entry.take_outcome(stored, other)


def replace_record(value: bytes, headers: Any) -> Record:
    return record(event(OUTCOME), 8, topic="mesh.outcomes", value=value, headers=headers)


def test_spans_are_limited() -> None:
    entry = RunEntry("r")
    for n in range(SPANS_MAX + 5):
        entry.take(record(event(REQUESTED), n * 2 * GAP_MAX), Unreadable("x", "y"))
    assert len(entry.inbox) == SPANS_MAX
    assert entry.inbox[-1][1] == (SPANS_MAX + 4) * 2 * GAP_MAX


@given(st.lists(st.integers(0, 8_000), min_size=1, max_size=30, unique=True), st.integers(0, 30))
def test_parts_joined_cover_the_same_places(offsets: list[int], at: int) -> None:
    offsets.sort()
    whole, first, second = RunEntry("r"), RunEntry("r"), RunEntry("r")
    for n, offset in enumerate(offsets):
        for entry in (whole, first if n < at else second):
            entry.take(record(event(REQUESTED, id=f"q{n}"), offset), event(REQUESTED, id=f"q{n}"))
    first.absorb(second)
    assert (first.inbox, first.requests) == (whole.inbox, whole.requests)
    first.absorb(replace(second, inbox=list(second.inbox)))  # read again: nothing changes
    assert first.inbox == whole.inbox


def test_parts_joined_keep_the_last_ending() -> None:
    first, second = RunEntry("r"), RunEntry("r")
    taken(first, 1, REQUESTED, id="q1", type="ask", subject="s", at_ms=5)
    first.take_outcome(*outcome(2))
    second.take_outcome(*outcome(3, generation=1, ending="completed"))
    first.absorb(second)
    assert first.ended is not None
    assert (first.ended.state, first.type, first.outcomes) == ("completed", "ask", [(2, 3)])
    third = RunEntry("r", late="completed")
    first.absorb(third)
    assert (first.late, first.ended.state) == ("completed", "completed")


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ending": 1}'])
def test_a_broken_outcome_says_nothing(body: bytes) -> None:
    stored, found = outcome()
    assert not RunEntry("r").take_outcome(stored, replace(found, data=body))
