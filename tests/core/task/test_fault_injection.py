"""Faults put in on purpose: how they are said, found, and end by themselves."""

import pytest

from mesh.core.protocol.record import StoredRecord
from mesh.core.run.control import MENDED, NOTHING, Control, control_record, fold_control
from mesh.core.task.fault_injection import (
    CRASH,
    ERROR,
    HANG,
    SLOW,
    InjectedFault,
    active_fault,
    active_faults,
    fault_switch,
    parse_fault,
)
from tests.builders import AT_MS, topology

MESH = topology(plan="ask -> done")
BREAKS = [
    InjectedFault(ERROR, "no such table: prices"),
    InjectedFault(SLOW, delay_ms=5_000),
    InjectedFault(CRASH),
    InjectedFault(HANG),
]


def said(*switches: object) -> Control:
    """Return the state of mesh.control after these."""
    records = []
    for n, switch in enumerate(switches):
        new = control_record(switch, MESH, event_id=f"c{n}")  # type: ignore[arg-type]
        records.append(StoredRecord(new.topic, 0, n, AT_MS, new.key, new.value, new.headers))
    control, flaws = fold_control(NOTHING, records)
    assert flaws == []
    return control


@pytest.mark.parametrize("fault", BREAKS)
def test_a_fault_is_found_until_it_ends_by_itself(fault: InjectedFault) -> None:
    control = said(fault_switch("plan", fault, by="ann@desk", until_ms=AT_MS + 100))
    found = active_fault(control, "plan", AT_MS + 99)
    assert found is not None
    assert (parse_fault(found.how), found.by) == (fault, "ann@desk")
    assert active_fault(control, "plan", AT_MS + 100) is None
    assert active_fault(control, "ship", AT_MS) is None
    assert active_faults(control, AT_MS) == [found]
    assert active_faults(control, AT_MS + 100) == []


def test_a_fault_is_taken_back_and_replaced_by_the_next() -> None:
    first, second = (fault_switch("plan", fault, by="a", until_ms=AT_MS + 100) for fault in BREAKS[:2])
    assert active_faults(said(first, second), AT_MS)[0].how == "slow 5000"
    assert active_faults(said(first, second._replace(state=MENDED)), AT_MS) == []


def test_a_fault_stops_no_agent() -> None:
    control = said(fault_switch("plan", InjectedFault(HANG), by="a", until_ms=AT_MS + 100))
    assert control.stop_of("plan") is None
    assert control.breaker_of("plan") is None
    assert control.stops == []


@pytest.mark.parametrize("text", ["", "error", "error ", "slow", "slow x", "slow -1", "slow ²", "crash now", "burn"])
def test_what_is_no_fault_breaks_nothing(text: str) -> None:
    assert parse_fault(text) is None
    switch = fault_switch("plan", InjectedFault(HANG), by="a", until_ms=AT_MS + 100)._replace(how=text)
    assert active_fault(said(switch), "plan", AT_MS) is None


@pytest.mark.parametrize(
    ("fault", "words"),
    list(
        zip(BREAKS, ["raises 'no such table: prices'", "takes 5 s longer", "kills its process", "hangs"], strict=True)
    ),
)
def test_a_fault_is_reported_in_words(fault: InjectedFault, words: str) -> None:
    assert fault.words == words
    assert parse_fault(fault.text) == fault
