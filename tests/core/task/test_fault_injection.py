"""Faults put in on purpose: how they are said, found, and end by themselves."""

import pytest

from mesh.core.protocol.record import StoredRecord
from mesh.core.run.control import MENDED, NOTHING, Control, control_record, folded
from mesh.core.task.fault_injection import CRASH, ERROR, HANG, SLOW, Break, break_of, broken, fault_of, faults
from tests.builders import AT_MS, topology

MESH = topology(plan="ask -> done")
BREAKS = [Break(ERROR, "no such table: prices"), Break(SLOW, delay_ms=5_000), Break(CRASH), Break(HANG)]


def said(*switches: object) -> Control:
    """What mesh.control says after these."""
    records = []
    for n, switch in enumerate(switches):
        new = control_record(switch, MESH, event_id=f"c{n}")  # type: ignore[arg-type]
        records.append(StoredRecord(new.topic, 0, n, AT_MS, new.key, new.value, new.headers))
    control, flaws = folded(NOTHING, records)
    assert flaws == []
    return control


@pytest.mark.parametrize("fault", BREAKS)
def test_a_fault_is_found_until_it_ends_by_itself(fault: Break) -> None:
    control = said(broken("plan", fault, by="ann@desk", until_ms=AT_MS + 100))
    found = fault_of(control, "plan", AT_MS + 99)
    assert found is not None
    assert (break_of(found.how), found.by) == (fault, "ann@desk")
    assert fault_of(control, "plan", AT_MS + 100) is None
    assert fault_of(control, "ship", AT_MS) is None
    assert faults(control, AT_MS) == [found]
    assert faults(control, AT_MS + 100) == []


def test_a_fault_is_taken_back_and_replaced_by_the_next() -> None:
    first, second = (broken("plan", fault, by="a", until_ms=AT_MS + 100) for fault in BREAKS[:2])
    assert faults(said(first, second), AT_MS)[0].how == "slow 5000"
    assert faults(said(first, second._replace(state=MENDED)), AT_MS) == []


def test_a_fault_stops_no_agent() -> None:
    control = said(broken("plan", Break(HANG), by="a", until_ms=AT_MS + 100))
    assert control.stop_of("plan") is None
    assert control.breaker_of("plan") is None
    assert control.stops == []


@pytest.mark.parametrize("text", ["", "error", "error ", "slow", "slow x", "slow -1", "slow ²", "crash now", "burn"])
def test_what_is_no_fault_breaks_nothing(text: str) -> None:
    assert break_of(text) is None
    switch = broken("plan", Break(HANG), by="a", until_ms=AT_MS + 100)._replace(how=text)
    assert fault_of(said(switch), "plan", AT_MS) is None


@pytest.mark.parametrize(
    ("fault", "words"),
    list(
        zip(BREAKS, ["raises 'no such table: prices'", "takes 5 s longer", "kills its process", "hangs"], strict=True)
    ),
)
def test_a_fault_is_told_in_words(fault: Break, words: str) -> None:
    assert fault.words == words
    assert break_of(fault.text) == fault
