"""The check in one pass: what it holds, and which runs remain. That it finds what `Verifier` finds, every check of
`tests.log_check` compares."""

from collections.abc import Iterator

import pytest

from mesh.core.protocol.codec import plain_headers, read_event
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import Record, StoredRecord
from mesh.core.verification import stream_check
from mesh.core.verification.replay_check import CheckScope
from mesh.core.verification.stream_check import StreamCheck, StreamResult
from tests.builders import AT_MS
from tests.core.lived import MESH, OUTCOMES, PLAN, Lived, good, live, requests

RUNS = 30


def lived_of(runs: int) -> Lived:
    return live(MESH, requests(runs))


def checked(lived: Lived, records: Iterator[Record] | None = None, **scope: object) -> tuple[StreamCheck, StreamResult]:
    check = StreamCheck(CheckScope(lived.topology, states=lived.fresh, **scope), hash)  # type: ignore[arg-type]
    for record in by_time(lived) if records is None else records:
        take = check.take_inbox if record.topic == lived.topology.inbox else check.take_published
        take(record)
    return check, check.result()


def by_time(lived: Lived) -> Iterator[Record]:
    inbox = lived.topology.inbox
    records = [
        record for listed in lived.records.values() for record in listed if not record.topic.startswith("orders")
    ]
    yield from sorted(records, key=lambda record: (record.timestamp, record.topic != inbox, record.offset))


def run_of(record: Record) -> str:
    event = read_event(record)
    assert isinstance(event, Event)
    return event.run_id


def test_a_log_that_is_well_leaves_no_suspects_and_needs_no_index() -> None:
    check, found = checked(good())
    assert (found.clean, found.suspects) == (True, set())
    assert (len(check._expected), len(check._early), len(check._unanswered)) == (0, 0, 0)


def test_only_the_run_whose_record_differs_is_suspect() -> None:
    lived = lived_of(3)
    wrong = lived.records[OUTCOMES][1]
    lived.change(OUTCOMES, 1, value=b"{}")
    _, found = checked(lived)
    assert (found.clean, found.suspects) == (False, {run_of(wrong)})


def test_a_record_that_is_missing_and_a_copy_make_suspects() -> None:
    lived = lived_of(3)
    asked = [run_of(record) for record in lived.records[PLAN]]
    del lived.records[PLAN][0]
    lived.repeat(PLAN, 1)
    _, found = checked(lived)
    assert found.suspects == {asked[0], asked[2]}


def test_records_of_a_run_out_of_order_make_it_suspect() -> None:
    lived = lived_of(2)
    first, second = lived.records[OUTCOMES][:2]
    lived.records[OUTCOMES][:2] = [second._replace(offset=0), first._replace(offset=1)]
    _, found = checked(lived, iter([*lived.records[lived.topology.inbox], *published(lived)]))
    assert found.suspects == {run_of(first)}


def published(lived: Lived) -> list[StoredRecord]:
    return [record for topic, listed in lived.records.items() if topic != lived.topology.inbox for record in listed]


def test_what_waits_is_bounded_by_the_delay_not_by_the_length(monkeypatch: pytest.MonkeyPatch) -> None:
    lived = lived_of(RUNS)
    check = StreamCheck(CheckScope(lived.topology, states=lived.fresh), hash)
    most = 0
    for record in by_time(lived):
        take = check.take_inbox if record.topic == lived.topology.inbox else check.take_published
        take(record)
        most = max(most, len(check._expected) + len(check._early))
    assert most <= 10 < RUNS
    monkeypatch.setattr(stream_check, "EARLY_MAX", 3)
    check, found = checked(lived, iter([*published(lived), *lived.records[lived.topology.inbox]]))
    assert len(found.suspects) > RUNS // 2  # all came before their decisions: the oldest are given to `Verifier`


def test_what_is_decided_and_not_committed_is_counted_and_no_suspect() -> None:
    lived = good()
    lived.records[OUTCOMES].clear()
    _, found = checked(lived, committed={})
    assert found.clean
    assert found.report.unchecked["decided, but not committed yet"] > 0


def test_a_mesh_that_writes_its_headers_in_plain_form_leaves_no_suspects() -> None:
    lived = good()
    for topic, listed in lived.records.items():
        lived.records[topic] = [record._replace(headers=plain_headers(record.headers)) for record in listed]
    _, found = checked(lived)
    assert found.clean


def test_what_was_published_after_the_window_is_counted_and_no_suspect() -> None:
    lived = good()
    lived.records[lived.topology.inbox].clear()
    _, found = checked(lived, until_ms=AT_MS)
    assert found.clean
    assert found.report.unchecked == {"published after the window": len(published(lived))}
