"""Gates: what they say of results, and what is refused in their file."""

from pathlib import Path
from typing import Any

import pytest

from bench.gates import Gate, judge, read
from bench.mesh_processes import ROOT
from bench.workloads import NAMES
from mesh.core.errors import ConfigInvalid
from tests.bench.canned import body, figure

GATES = ROOT / "bench" / "gates.toml"
STRICT = ROOT / "bench" / "gates-strict.toml"
STATE = body(
    "state",
    figure("cpu_us_per_event", 30.0, at={"open_runs": 1_000}),
    figure("cpu_us_per_event", 36.0, at={"open_runs": 100_000}),
    log="none",
)
OVER: dict[str, Any] = {"at": {"open_runs": 100_000}, "over": {"at": {"open_runs": 1_000}}}


def test_a_bound_holds_or_not() -> None:
    run1 = body("run1", figure("runs_per_s", 5_000))
    low, high = Gate("run1", "runs_per_s", at_least=4_000), Gate("run1", "runs_per_s", at_most=4_000)
    assert [verdict.holds for verdict in judge([low, high], [run1])] == [True, False]
    (verdict,) = judge([high], [run1])
    assert verdict.sentence == "run1 runs_per_s on sqlite: 5,000, at most 4000"


def test_a_ratio_is_judged_between_two_points_of_one_result() -> None:
    (verdict,) = judge([Gate("state", "cpu_us_per_event", at_most=1.25, **OVER)], [STATE])
    assert verdict.holds
    assert verdict.value == pytest.approx(1.2)
    (verdict,) = judge([Gate("state", "cpu_us_per_event", at_most=1.1, **OVER)], [STATE])
    assert not verdict.holds


def test_a_ratio_is_judged_against_a_peer_on_the_same_log() -> None:
    ours = [body("hop", figure("hops_per_s", value), log=log) for value, log in ((50, "sqlite"), (90, "kafka"))]
    peer = body("hop", figure("hops_per_s", 100), subject="aiokafka", log="kafka")
    gate = Gate("hop", "hops_per_s", over={"subject": "aiokafka"}, at_least=0.8)
    embedded, kafka = judge([gate], [*ours, peer])
    assert (embedded.holds, kafka.holds, kafka.value) == (None, True, 0.9)


def test_what_was_not_measured_is_reported_and_a_figure_that_is_gone_fails() -> None:
    (verdict,) = judge([Gate("run1", "runs_per_s", at_least=1)], [STATE])
    assert (verdict.holds, verdict.sentence) == (None, "run1 runs_per_s: not measured")
    (verdict,) = judge([Gate("state", "renamed", at_least=1)], [STATE])
    assert verdict.holds is False


def test_a_gate_may_be_about_one_log_only() -> None:
    bodies = [body("run1", figure("runs_per_s", 10), log=log) for log in ("sqlite", "kafka")]
    assert len(judge([Gate("run1", "runs_per_s", at_least=1)], bodies)) == 2
    assert len(judge([Gate("run1", "runs_per_s", at_least=1, log="kafka")], bodies)) == 1


def test_the_gates_of_this_project_are_about_workloads_there_are() -> None:
    gates = read(GATES)
    assert gates
    assert {gate.workload for gate in gates} <= set(NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[gate]]\nworkload = 'run1'\nfigure = 'x'\nat_leest = 3\n", "at_leest"),
        ("[[gate]]\nworkload = 'run1'\nfigure = 'x'\n", "bounds nothing"),
        ("[[gate]]\nworkload = 'run1'\nat_most = 3\n", "bounds nothing"),
        ("[[gate]]\nworkload = 'run1'\nfigure = 'x'\nat_most = 'much'\n", "at_most"),
        ("[[gate]]\nworkload = 'run1'\nfigure = 'x'\nat_most = 1\nover = {on = 'kafka'}\n", "'on'"),
        ("[[gate]\n", "cannot be read"),
        ("[gates]\n", "more than gates"),
        ("", "no gate"),
        ("[[gate]]\nworkload = 'fodl'\nfigure = 'x'\nat_most = 1\n", "'fodl'"),
        ("[[gate]]\nworkload = 'fold'\nfigure = 'x'\nat_most = 1\nover = {workload = 'fodl'}\n", "'fodl'"),
    ],
)
def test_a_file_that_means_nothing_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "gates.toml"
    file.write_text(text)
    with pytest.raises(ConfigInvalid, match=message) as caught:
        read(file)
    assert str(file) in caught.value.where


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no such file"):
        read(tmp_path / "gates.toml")


def measured(gate: Gate, value: float) -> list[dict[str, Any]]:
    """Results in which this gate sees this value; what it is compared with is 1."""
    seen = figure(gate.figure, value, at=dict(gate.at))
    log = gate.log or "sqlite"
    if gate.over is None:
        return [body(gate.workload, seen, subject=gate.subject, log=log)]
    words = {**gate._asdict(), "log": log, **gate.over}
    other = figure(words["figure"], 1.0, at=dict(words["at"]))
    if (words["workload"], words["subject"], words["log"]) == (gate.workload, gate.subject, log):
        return [body(gate.workload, seen, other, subject=gate.subject, log=log)]
    return [
        body(gate.workload, seen, subject=gate.subject, log=log),
        body(words["workload"], other, subject=words["subject"], log=words["log"]),
    ]


@pytest.mark.parametrize("gate", [*read(GATES), *read(STRICT)], ids=lambda gate: f"{gate.workload} {gate.figure}")
def test_every_gate_of_this_project_fails_when_its_figure_has_fallen(gate: Gate) -> None:
    low, high = gate.at_least, gate.at_most
    bound = low if low is not None else high
    assert bound
    fallen = bound * (0.9 if low is not None else 1.1)
    assert [verdict.holds for verdict in judge([gate], measured(gate, bound))] == [True]
    assert [verdict.holds for verdict in judge([gate], measured(gate, fallen))] == [False]


def test_the_strict_bounds_are_not_wider_than_the_generous_ones() -> None:
    strict = {point(gate): gate for gate in read(STRICT)}
    both = [(gate, strict[key]) for gate in read(GATES) if (key := point(gate)) in strict]
    assert both
    for generous, hard in both:
        assert (generous.at_least or 0) <= (hard.at_least or 0)
        assert (generous.at_most or 0) >= (hard.at_most or 0)


def point(gate: Gate) -> tuple[str, str, str, str]:
    return gate.workload, gate.figure, gate.subject, str(gate.at)


def test_continuous_integration_measures_what_the_gates_are_about() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "--gate bench/gates.toml" in makefile
    assert "\nmake gates\n" in (ROOT / ".ci" / "run").read_text()
    (gated,) = (line.split()[2:] for line in makefile.splitlines() if line.startswith("GATED := "))
    about = {gate.workload for gate in read(GATES) if gate.subject == "mesh"}
    assert about - set(gated) == {"scale"}, "more processes take minutes: after `make bench` only"
