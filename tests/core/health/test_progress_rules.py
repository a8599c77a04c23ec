"""What a mesh does, judged: lag, open runs, stops and alerts, dead letters, clocks, disk."""

import pytest

from mesh.core.health.finding import ERROR, NOTE, OK, WARNING, Finding
from mesh.core.health.progress_rules import (
    GIB,
    judge_control,
    judge_dead_letters,
    judge_disk,
    judge_lags,
    judge_runs,
    judge_skew,
)
from mesh.core.metrics.alerts import ALERTED, AlertFact
from mesh.core.run.control import AGENT, ALL, BREAKER, BROKEN, FAULT, NOTHING, OPENED, STOPPED, Switch
from mesh.core.scaling.lag import GroupLag
from tests.core.metrics.scenario import MESH

TIMEOUT_MS = MESH.agents["plan"].timeout_ms


def brief(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(one.level, one.where, one.next) for one in findings]


def test_groups_that_are_behind_for_long_are_found() -> None:
    lags = [
        GroupLag("intake", "asks", {0: 2}, 10_001),
        GroupLag("orchestrator", "mesh.inbox", {0: 2}, 10_000),
        GroupLag("plan", "mesh.tasks.plan", {0: 1, 1: 2}, TIMEOUT_MS + 1),
        GroupLag("ship", "mesh.tasks.ship", {0: 1}, TIMEOUT_MS + 1),
        GroupLag("hand", "mesh.tasks.hand", {0: 1}, None),
        GroupLag("monitor", "mesh.inbox", {0: 9}, 99_999),
    ]
    stopped = NOTHING.with_switch(Switch(AGENT, "ship", STOPPED))
    assert brief(judge_lags(MESH, lags, stopped)) == [
        (ERROR, "intake", "mesh up intake"),
        (WARNING, "plan", "mesh up worker"),
        (WARNING, "monitor", "mesh up monitor"),
    ]
    assert judge_lags(MESH, lags, stopped)[1].what.startswith("3 records on mesh.tasks.plan wait")
    assert [one.level for one in judge_lags(MESH, lags[1:2], NOTHING)] == [OK]


def test_runs_past_their_deadline_are_found_the_oldest_first() -> None:
    now_ms, deadline_ms = 1_000_000, 60_000
    runs = [("young", now_ms - 70_000), ("late", now_ms - 70_001), ("older", now_ms - 80_000)]
    assert brief(judge_runs(runs, deadline_ms, now_ms)) == [
        (ERROR, "run older", "mesh run show older"),
        (ERROR, "run late", "mesh run show late"),
    ]
    many = judge_runs(((f"r{n}", n) for n in range(9)), deadline_ms, now_ms)
    assert (len(many), many[-1].what) == (6, "4 more runs are open after their deadline")
    assert brief(judge_runs([], deadline_ms, now_ms)) == [(OK, "runs", "")]


def test_stops_breakers_faults_and_alerts_are_said_with_their_undo() -> None:
    control = NOTHING
    for switch in (
        Switch(AGENT, "ship", STOPPED, "monitor", "alert failing: it is bad"),
        Switch(AGENT, ALL, STOPPED, "ann"),
        Switch(BREAKER, "plan", OPENED, why="5 in a row"),
        Switch(FAULT, "hand", BROKEN, "ann", how="error no tea", until_ms=10),
    ):
        control = control.with_switch(switch)
    alerts = {fact.key: fact for fact in (AlertFact("failing", "agent:ship", ALERTED, "it is bad"),)}
    found = judge_control(control, alerts, 9)
    assert brief(found) == [
        (ERROR, "agent ship", "mesh windows ship"),
        (WARNING, "agent ship", "mesh resume agent ship"),
        (WARNING, "all agents", "mesh resume all"),
        (WARNING, "agent plan", "mesh windows plan"),
        (WARNING, "agent hand", "mesh unbreak hand"),
    ]
    assert found[1].what == "stopped by monitor: alert failing: it is bad"
    assert len(judge_control(control, alerts, 10)) == 4  # the fault is over
    assert brief(judge_control(NOTHING, {}, 0)) == [(OK, "agents", "")]


@pytest.mark.parametrize(("kept", "recent", "level"), [(0, 0, OK), (3, 0, NOTE), (3, 1, WARNING)])
def test_dead_letters(kept: int, recent: int, level: str) -> None:
    assert [one.level for one in judge_dead_letters(kept, recent)] == [level]


@pytest.mark.parametrize(("ahead_ms", "level"), [(5_000, OK), (5_001, WARNING), (-5_001, WARNING), (0, OK)])
def test_clocks(ahead_ms: int, level: str) -> None:
    assert judge_skew("board", ahead_ms).level == level


@pytest.mark.parametrize(("free", "level"), [(GIB, OK), (GIB - 1, WARNING), (GIB // 8, WARNING), (GIB // 8 - 1, ERROR)])
def test_disks(free: int, level: str) -> None:
    assert judge_disk("disk", free, 100 * GIB).level == level
