"""Alerts: when they alert and clear, what they stop, and what is on mesh.control."""

from dataclasses import replace

import pytest

from mesh.core.metrics.aggregate import Aggregate
from mesh.core.metrics.alerts import ALERTED, CLEARED, AlertFact, alert_record, changes, fold_alerts, stop_of
from mesh.core.metrics.definitions import DEFINITIONS, Measured
from mesh.core.metrics.windows import Scoped
from mesh.core.protocol.record import NewRecord, Record, StoredRecord
from mesh.core.run.control import AGENT, NOTHING, RUNNING, STOPPED, Control, Switch, control_record, fold_control
from mesh.core.topology.model import AlertRule
from tests.core.metrics.scenario import BEGIN_MS, MESH

FAILING = AlertRule(
    "failing", "error_rate", True, 0.2, 20_000, stops=True, text="error_rate > 20% for 20s", samples_min=8
)
TOPOLOGY = replace(MESH, alerts={"failing": FAILING})
END_MS = BEGIN_MS + 20_000


def base(answers: int, errors: int, start_ms: int = BEGIN_MS) -> dict[int, Scoped]:
    return {start_ms: {"agent:plan": Aggregate({"answers": answers, "errors": errors})}}


def found(
    windows: dict[int, Scoped],
    *active: AlertFact,
    control: Control = NOTHING,
    since_ms: int = BEGIN_MS,
    topology: object = TOPOLOGY,
) -> list[AlertFact]:
    standing = {fact.key: fact for fact in active}
    return list(
        changes(
            TOPOLOGY if topology is TOPOLOGY else MESH,
            windows,
            END_MS,
            active=standing,
            control=control,
            since_ms=since_ms,
        )
    )


def stored(records: list[NewRecord]) -> list[Record]:
    return [StoredRecord(r.topic, 0, n, END_MS, r.key, r.value, r.headers) for n, r in enumerate(records)]


def test_it_alerts_once_with_the_value_beside_the_bound() -> None:
    (fact,) = found(base(8, 2))
    assert fact == AlertFact(
        "failing", "agent:plan", ALERTED, "error_rate is 25.0 %, the rule is error_rate > 20% for 20s", END_MS, True
    )
    assert not found(base(8, 2), fact)
    assert not found(base(10, 2))  # the bound itself is not exceeded
    assert not found(base(8, 2, BEGIN_MS - 10_000))  # too long ago


def test_it_does_not_alert_on_few_samples_and_does_not_clear_for_them() -> None:
    assert not found(base(7, 7))
    assert AlertRule("", "error_rate", True, 0.2, 20_000).samples_min == 10
    (fact,) = found(base(8, 8))
    assert not found(base(1, 1), fact)


@pytest.mark.parametrize(
    ("number", "samples"),
    [
        ("error_rate", 7),  # of 9 answers two were no attempts
        ("retry_rate", 9),
        ("p95", 3),
        ("context_drift", 0),
        ("overhead", 9),
        ("completion_rate", 5),
        ("usd_per_run", 4),
        ("cascade_depth", None),
        ("rate", None),
        ("usd", None),
        ("dead_letters", None),
    ],
)
def test_samples_are_what_a_number_rests_on(number: str, samples: int | None) -> None:
    own = Aggregate({"answers": 9, "untried": 2, "ended": 5, "ending:completed": 4})
    for ms in (1, 2, 3):
        own.observe("work_ms", ms)
    own.observe("cascade", 3)
    assert DEFINITIONS[number].samples(Measured(own, own, 10_000)) == samples


def test_a_count_alerts_from_the_first_on() -> None:
    rule = AlertRule("deep", "cascade_depth", True, 2, 20_000, "plan", text="cascade_depth > 2")
    own = Aggregate()
    own.observe("cascade", 3)
    topology = replace(MESH, alerts={"deep": rule})
    windows = {BEGIN_MS: {"agent:plan": own}}
    (fact,) = changes(topology, windows, END_MS, active={}, control=NOTHING, since_ms=0)
    assert fact.key == "alert:deep/agent:plan"


def test_it_clears_when_the_number_is_back_or_gone() -> None:
    (fact,) = found(base(8, 2))
    for windows in (base(8, 0), {}):
        (cleared,) = found(windows, fact)
        assert (cleared.key, cleared.state) == (fact.key, CLEARED)
    assert not found({}, fact, since_ms=BEGIN_MS + 1)  # the monitor has not seen the whole time


def test_it_stands_while_the_agent_that_it_stopped_is_stopped() -> None:
    (fact,) = found(base(8, 2))
    switch = stop_of(fact, NOTHING)
    assert switch is not None
    assert (switch.key, switch.state, switch.by) == ("agent:plan", STOPPED, "monitor")
    assert switch.why.startswith("alert failing: error_rate is 25.0 %")
    stopped = NOTHING.with_switch(switch)
    assert stop_of(fact, stopped) is None
    assert not found({}, fact, control=stopped)
    resumed = stopped.with_switch(Switch(AGENT, "plan", RUNNING))
    assert [one.state for one in found({}, fact, control=resumed)] == [CLEARED]


def test_a_rule_below_a_bound_and_one_of_the_mesh() -> None:
    rule = AlertRule("few", "completion_rate", False, 0.9, 20_000, "mesh", True, "completion_rate < 90% for 20s", 4)
    topology = replace(MESH, alerts={"few": rule})
    windows = {BEGIN_MS: {"mesh": Aggregate({"ended": 4, "ending:completed": 3})}}
    (fact,) = changes(topology, windows, END_MS, active={}, control=NOTHING, since_ms=0)
    assert (fact.scope, fact.agent) == ("mesh", "*")
    assert (stop_of(fact, NOTHING) or Switch("", "", "")).key == "agent:*"


def test_an_alert_whose_rule_is_gone_clears() -> None:
    (fact,) = found(base(8, 2))
    (cleared,) = found(base(8, 2), fact, topology=None)
    assert (cleared.state, cleared.why) == (CLEARED, "the rule is gone")


def test_facts_on_mesh_control_are_folded_and_are_no_switches() -> None:
    (fact,) = found(base(8, 2))
    switch = control_record(Switch(AGENT, "ship", STOPPED, "ann"), TOPOLOGY, event_id="s")
    other = alert_record(fact._replace(scope="mesh"), TOPOLOGY)
    records = stored(
        [alert_record(fact, TOPOLOGY), switch, other, alert_record(fact._replace(state=CLEARED), TOPOLOGY)]
    )
    assert fold_alerts({}, records[:1]) == {fact.key: fact}
    assert list(fold_alerts({}, records)) == ["alert:failing/mesh"]
    control, flaws = fold_control(NOTHING, records)
    assert (list(control.switches), control.offset, flaws) == (["agent:ship"], 3, [])


def test_an_unreadable_fact_is_left_alone() -> None:
    (fact,) = found(base(8, 2))
    record = alert_record(fact, TOPOLOGY)
    odd = [record._replace(value=value) for value in (b"[]", b"{}", b"x", None)]
    assert fold_alerts({}, stored(odd)) == {}
