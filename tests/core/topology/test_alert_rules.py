"""`alerts:` of topics.yaml: what it means, and what is refused with its line."""

import pytest

from mesh.core.errors import TopologyInvalid
from mesh.core.metrics import definitions, windows
from mesh.core.topology import alert_rules
from mesh.core.topology.loader import load
from mesh.core.topology.model import AlertRule, Topology
from mesh.core.topology.serialization import pinned_bytes, pinned_topology
from tests.core.topology.test_loader import SMALL


def loaded(*lines: str) -> Topology:
    return load(SMALL + "alerts:\n" + "".join(f"  {line}\n" for line in lines))


def test_alerts_are_read() -> None:
    alerts = loaded(
        "failing: error_rate > 20% for 1m",
        "slow: {when: p95 > 2s for 10s, of: one, min: 50}",
        "cascade: {when: cascade_depth > 3, of: mesh, then: stop}",
        "few: completion_rate < 95.5% for 1h",
    ).alerts
    assert alerts == {
        "failing": AlertRule("failing", "error_rate", True, 0.2, 60_000, text="error_rate > 20% for 1m"),
        "slow": AlertRule("slow", "p95", True, 2_000, 10_000, "one", False, "p95 > 2s for 10s", 50),
        "cascade": AlertRule("cascade", "cascade_depth", True, 3, 60_000, "mesh", True, "cascade_depth > 3"),
        "few": AlertRule(
            "few", "completion_rate", False, 0.955, 3_600_000, "mesh", text="completion_rate < 95.5% for 1h"
        ),
    }


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("a: error_rate is high", "alerts.a: this is not the condition of an alert; expected NUMBER > BOUND for TIME"),
        ("a: error_rat > 2%", "alerts.a: no number has this name"),
        ("a: error_rate > 0.2", 'alerts.a: this is not a share; expected 0% to 100%, got "0.2"'),
        ("a: error_rate > 120%", "alerts.a: this is not a share"),
        ("a: p95 > 2", "alerts.a: invalid unit; expected a duration with its unit"),
        ("a: depth > 2", "alerts.a: no number has this name"),
        ("a: cascade_depth > many", "alerts.a: this is not a number"),
        ("a: p95 > 2s for 5s", "alerts.a: alerts cannot look at this time; expected 10s to 1h, in steps of 10s"),
        ("a: p95 > 2s for 2h", "alerts.a: alerts cannot look at this time"),
        ("a: [p95 > 2s]", "alerts.a: expected a mapping of when, of, min, then, got a list"),
        ("a: {of: one}", "alerts.a: missing key `when`"),
        ("a: {when: p95 > 2s, of: two}", 'alerts.a.of: no agent has this name; expected an agent, or mesh, got "two"'),
        ("a: {when: overhead > 20%, of: one}", "alerts.a.of: overhead is a number of the whole mesh, not of an agent"),
        ("a: {when: p95 > 2s, then: shout}", 'alerts.a.then: an alert cannot do this; expected stop, got "shout"'),
        ("a: {when: p95 > 2s, min: 0}", "alerts.a.min: "),
        ("a: {when: p95 > 2s, than: stop}", 'alerts.a: unknown key "than"'),
        ("A b: p95 > 2s", 'alerts: "A b" is not a name'),
    ],
)
def test_what_is_wrong_is_said_with_its_line(line: str, what: str) -> None:
    with pytest.raises(TopologyInvalid) as caught:
        loaded(line)
    first = caught.value.problems[0]
    assert first.what.startswith(what), first
    assert first.line == len(SMALL.splitlines()) + 2


def test_the_numbers_are_those_of_the_definitions() -> None:
    units = {"share": alert_rules.SHARE, "ms": alert_rules.MS}
    expected = {name: units.get(each.unit, alert_rules.NUMBER) for name, each in definitions.DEFINITIONS.items()}
    assert expected == alert_rules.NUMBERS
    assert windows.BASE_MS == alert_rules.BASE_MS


def test_decisions_do_not_depend_on_alerts_and_a_stored_topology_keeps_them() -> None:
    topology = loaded("a: p95 > 2s")
    assert topology.digest == load(SMALL).digest
    assert pinned_topology(pinned_bytes(topology), topology.digest).alerts == topology.alerts
