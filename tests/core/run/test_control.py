"""Stops (agent, operator, time and reason), folded from mesh.control and relayed to every partition."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import CANCELLED, PAUSED, RESUMED, SWITCHED, Event
from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.core.run.control import (
    ALL,
    NOTHING,
    STATES,
    TEXT_CHARS_MAX,
    Control,
    Switch,
    command_record,
    control_record,
    fold_control,
    read_control,
    read_switch,
    relay_record,
)
from mesh.core.state.checkpoint import CheckpointLoader, Snapshot
from mesh.core.state.partition_state import Partition
from tests.builders import AT_MS, RUN_ID, event, json, record, topology

ECHO = topology(echo="ask -> answer")
STOP_PRICING = Switch("agent", "pricing", "stopped", "ann@desk", "it mails customers")
RESUME_PRICING = Switch("agent", "pricing", "running", "bob@desk")
STOP_ALL = Switch("agent", ALL, "stopped", "ann@desk")
RESUME_ALL = Switch("agent", ALL, "running", "ann@desk")

turned = st.sampled_from(sorted(STATES)).flatmap(
    lambda what: st.builds(
        Switch,
        st.just(what),
        st.sampled_from(["a", "b", ALL]),
        st.sampled_from(STATES[what]),
        st.text(max_size=5),
        how=st.text(max_size=5),
        until_ms=st.integers(0, 2**60),
    )
)


def stored(new: NewRecord, offset: int = 0) -> StoredRecord:
    return StoredRecord(new.topic, new.partition or 0, offset, AT_MS + offset, new.key, new.value, new.headers)


def said(*switches: Switch) -> Control:
    """Return the state of mesh.control after these, the first at offset 0."""
    records = [stored(control_record(s, ECHO, event_id=f"c{n}"), n) for n, s in enumerate(switches)]
    control, flaws = fold_control(NOTHING, records)
    assert flaws == []
    return control


def told(control: Control) -> Event:
    """The event that a partition reads."""
    found = read_event(stored(relay_record(control, ECHO, 3)))
    assert isinstance(found, Event)
    return found


# ------------------------------------------------------------------------------------------------------------- the fold


def test_without_switches_every_agent_runs() -> None:
    assert (NOTHING.stop_of("pricing"), NOTHING.stops) == (None, [])


def test_a_stop_has_an_operator_a_time_and_a_reason() -> None:
    control = said(STOP_PRICING)
    stop = control.stop_of("pricing")
    assert stop == STOP_PRICING._replace(at_ms=AT_MS, offset=0)
    assert stop is not None
    assert (stop.by, stop.why, stop.key) == ("ann@desk", "it mails customers", "agent:pricing")
    assert control.stop_of("fraud") is None


def test_a_stop_of_all_stops_every_agent_and_its_end_leaves_the_agents_that_were_stopped_by_name() -> None:
    control = said(STOP_PRICING, STOP_ALL)
    assert [getattr(control.stop_of(name), "agent", None) for name in ("pricing", "fraud")] == [ALL, ALL]
    control = said(STOP_PRICING, STOP_ALL, RESUME_ALL)
    assert [getattr(control.stop_of(name), "agent", None) for name in ("pricing", "fraud")] == ["pricing", None]


def test_a_resumed_agent_runs_and_nothing_of_its_stop_is_kept() -> None:
    control = said(STOP_PRICING, RESUME_PRICING)
    assert (control.stop_of("pricing"), control.switches, control.offset) == (None, {}, 1)


def test_the_last_word_about_a_switch_counts() -> None:
    control = said(STOP_PRICING, STOP_ALL, STOP_PRICING._replace(by="bob@desk"))
    assert [(stop.agent, stop.by) for stop in control.stops] == [(ALL, "ann@desk"), ("pricing", "bob@desk")]


def test_a_compacted_topic_says_the_same() -> None:
    history = [STOP_PRICING, STOP_ALL, RESUME_PRICING, RESUME_ALL, STOP_PRICING]
    records = [stored(control_record(s, ECHO, event_id=f"c{n}"), n) for n, s in enumerate(history)]
    compacted = {r.key: r for r in records}
    whole, _ = fold_control(NOTHING, records)
    assert fold_control(NOTHING, sorted(compacted.values(), key=lambda r: r.offset)) == (whole, [])


def test_the_fold_does_not_change_values_held_by_callers() -> None:
    before = said(STOP_PRICING)
    held = repr(before)
    before.with_switch(RESUME_PRICING._replace(offset=1))
    assert repr(before) == held


@pytest.mark.parametrize(
    "body",
    [
        b"\xff",
        b"[]",
        b"{}",
        b'{"what": "weather", "agent": "a", "state": "stopped"}',
        b'{"what": "agent", "agent": "a", "state": "open"}',
        b'{"what": "agent", "agent": "", "state": "stopped"}',
        b'{"what": "agent", "agent": 7, "state": "stopped"}',
        b'{"what": "agent", "agent": "a", "state": "stopped", "by": []}',
    ],
)
def test_a_record_without_a_valid_switch_is_reported_and_skipped(body: bytes) -> None:
    good = stored(control_record(STOP_PRICING, ECHO, event_id="c0"))
    control, flaws = fold_control(NOTHING, [good, good._replace(value=body, offset=1)])
    assert [flaw.code for flaw in flaws] == ["bad_switch"]
    assert (control.stop_of("pricing") is not None, control.offset) == (True, 1)


def test_bytes_that_are_no_event_are_reported_with_their_own_reason() -> None:
    flaw = read_switch(StoredRecord("mesh.control", 0, 0, AT_MS, None, b"{}", []))
    assert isinstance(flaw, Unreadable)
    assert flaw.code == "not_cloudevents"


def test_texts_are_cut_before_they_are_written() -> None:
    long = "x" * (TEXT_CHARS_MAX + 1)
    switch = read_switch(stored(control_record(STOP_PRICING._replace(by=long, why=long), ECHO, event_id="c0")))
    assert isinstance(switch, Switch)
    assert (len(switch.by), len(switch.why)) == (TEXT_CHARS_MAX, TEXT_CHARS_MAX)


# ------------------------------------------------------------------------------------------------------------ the relay


@given(st.lists(turned, max_size=8))
def test_what_is_relayed_says_what_mesh_control_says(switches: list[Switch]) -> None:
    control = said(*switches)
    if control.offset >= 0:
        assert read_control(told(control)) == control


def test_a_relay_lies_in_its_partition_and_its_id_follows_from_what_it_tells() -> None:
    new = relay_record(said(STOP_PRICING, STOP_ALL), ECHO, 3)
    assert (new.topic, new.key, new.partition) == ("mesh.inbox", b"*", 3)
    found = told(said(STOP_PRICING, STOP_ALL))
    assert (found.id, found.kind, found.run_id) == ("control:1", SWITCHED, ALL)


@pytest.mark.parametrize(
    "change",
    [{"offset": -1}, {"offset": True}, {"at_ms": "1"}, {"switches": None}, {"switches": [1]}, {"switches": [{}]}],
)
def test_a_relay_that_says_nothing_of_switches_is_refused(change: dict[str, Any]) -> None:
    body = {"offset": 1, "at_ms": 1, "switches": [], **change}
    flaw = read_control(replace(told(said(STOP_PRICING)), data=json(body)))
    assert isinstance(flaw, Unreadable)
    assert flaw.code == "bad_switch"


def test_a_partition_knows_what_was_relayed_last() -> None:
    state = Partition(ECHO, number=3, partitions=6)
    assert state.step(stored(relay_record(said(STOP_PRICING), ECHO, 3), 40)) == []
    assert (state.control, state.offset) == (said(STOP_PRICING), 41)
    assert state.step(stored(relay_record(said(STOP_PRICING, RESUME_PRICING), ECHO, 3), 41)) == []
    assert state.control.stop_of("pricing") is None


def test_a_checkpoint_holds_the_stopped_agents() -> None:
    state = Partition(ECHO, number=0, partitions=1)
    state.step(stored(relay_record(said(STOP_PRICING, STOP_ALL), ECHO, 0)))
    loading = CheckpointLoader()
    for chunk in Snapshot(state).chunks():
        loading.feed(chunk)
    again = loading.partition(ECHO)
    assert again.control == said(STOP_PRICING, STOP_ALL)
    (note,) = again.step(stored(relay_record(said(STOP_PRICING), ECHO, 0), 1))
    assert getattr(note, "code", "") == "late_switch"


def test_a_relay_that_comes_again_or_late_changes_nothing_and_is_counted() -> None:
    state = Partition(ECHO, number=0, partitions=1)
    now, older = said(STOP_PRICING, RESUME_PRICING), said(STOP_PRICING)
    state.step(stored(relay_record(now, ECHO, 0)))
    for control in (now, older):
        (note,) = state.step(stored(relay_record(control, ECHO, 0)))
        assert getattr(note, "code", "") == "late_switch"
    assert state.control == now


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"key": b"run-1"}, "key_mismatch"), ({"key": None}, "key_mismatch"), ({"value": b"{}"}, "bad_switch")],
)
def test_a_forged_relay_is_a_dead_letter(fields: dict[str, Any], code: str) -> None:
    state = Partition(ECHO, number=0, partitions=1)
    (letter,) = state.step(stored(relay_record(said(STOP_ALL), ECHO, 0))._replace(**fields))
    assert getattr(letter, "code", "") == code
    assert state.control == NOTHING


def test_no_relay_comes_in_under_the_name_of_a_run() -> None:
    state = Partition(ECHO, number=0, partitions=1)
    (letter,) = state.step(record(event(SWITCHED, data=told(said(STOP_ALL)).data)))
    assert getattr(letter, "code", "") == "key_mismatch"


def test_no_run_goes_by_the_name_of_all() -> None:
    state = Partition(ECHO, number=0, partitions=1)
    (letter,) = state.step(record(event(run_id=ALL)))
    assert getattr(letter, "code", "") == "bad_id"


# ------------------------------------------------------------------------------------------------------------ one run


@pytest.mark.parametrize(
    ("kind", "type"), [(CANCELLED, "mesh.cancel"), (PAUSED, "mesh.pause"), (RESUMED, "mesh.resume")]
)
def test_a_run_command_lies_with_its_run_and_names_operator_and_reason(kind: str, type: str) -> None:
    new = command_record(kind, RUN_ID, ECHO, event_id="w1", at_ms=AT_MS, by="ann", why="x" * 600)
    found = read_event(stored(new))
    assert isinstance(found, Event)
    assert (new.topic, new.key) == ("mesh.inbox", RUN_ID.encode())
    assert (found.kind, found.type, found.run_id, found.id) == (kind, type, RUN_ID, "w1")
    assert found.data == json({"by": "ann", "why": "x" * TEXT_CHARS_MAX})
    assert found.subject == f"ann: {'x' * TEXT_CHARS_MAX}"


def forged(offset: int) -> Control:
    """Return a false claim of a writer of the inbox: that all agents are stopped, as of any offset."""
    return Control(offset, 1, {STOP_ALL.key: STOP_ALL._replace(offset=offset)})


def test_a_false_relay_with_a_high_offset_keeps_no_true_one_out_that_corrects_it() -> None:
    state, truth = Partition(ECHO, number=0, partitions=1), said(STOP_PRICING)
    state.step(stored(relay_record(forged(10**15), ECHO, 0)))
    (note,) = state.step(stored(relay_record(truth, ECHO, 0), 1))
    assert getattr(note, "code", "") == "late_switch"
    assert state.step(stored(relay_record(truth, ECHO, 0, replaces=10**15), 2)) == []
    assert state.control == truth
    assert state.step(stored(relay_record(said(STOP_PRICING, RESUME_PRICING), ECHO, 0), 3)) == []


def test_a_correction_of_something_else_is_late() -> None:
    state, truth = Partition(ECHO, number=0, partitions=1), said(STOP_PRICING, RESUME_PRICING)
    state.step(stored(relay_record(truth, ECHO, 0)))
    for again in (relay_record(said(STOP_PRICING), ECHO, 0, replaces=10**15), relay_record(truth, ECHO, 0, replaces=1)):
        (note,) = state.step(stored(again, 1))
        assert getattr(note, "code", "") == "late_switch"
    assert state.control == truth


def test_a_false_relay_with_a_true_offset_is_corrected() -> None:
    state, truth = Partition(ECHO, number=0, partitions=1), said(STOP_PRICING)
    state.step(stored(relay_record(forged(truth.offset), ECHO, 0)))
    assert state.step(stored(relay_record(truth, ECHO, 0, replaces=truth.offset), 1)) == []
    assert state.control == truth
