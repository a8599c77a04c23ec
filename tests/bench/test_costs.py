"""Costs of the capacity model from results."""

from typing import Any

import pytest

from bench.costs import added_ms, checks, costs_of, source, state_source
from bench.growth import table
from bench.load import ROUNDS
from bench.model import Costs, StateCosts
from mesh.core.errors import MeshError
from tests.bench.canned import body, figure


def run(workload: str, log: str, rate: float, **services: float) -> dict[str, Any]:
    used = [figure(f"{name}_cpu_us_per_run", us, unit="µs", better="none") for name, us in services.items()]
    return body(workload, figure("runs_per_s", rate), *used, log=log)


SQLITE = run("run1", "sqlite", 9_000, orchestrator=92, worker=80, client=43)
KAFKA = run("run1", "kafka", 8_000, orchestrator=110, worker=90, client=50, broker=60)
KAFKA["figures"] += [figure("records_per_run", 5), figure("bytes_per_run", 2_850)]
KAFKA["figures"] += [figure("log_alone_records_per_s", 400_000, at={"by": "kafka-producer-perf-test"})]
GROWTH = body(
    "growth-io",
    *(
        figure(name, value, at={"processes": processes})
        for processes, rate in ((1, 300), (2, 590))
        for name, value in (
            *(("runs_per_s", rate), ("runs_per_burst", 3_000)),
            *(("orchestrator_cpu_us_per_run", 100), ("worker_cpu_us_per_run", 90)),
        )
    ),
    settings={"partitions": 8, "lanes": 16, "wait_ms": 50, "work_ms": 0},
)
STATE = body("state", figure("open_run_bytes", 936), log="none")
RECOVERY = body(
    "recovery",
    figure("after_kill_s", 0.25, at={"open_runs": 10_000}),
    figure("checkpoint_bytes_per_run", 68, at={"open_runs": 10_000}),
)


def test_costs_come_from_the_broker_if_it_was_measured_there() -> None:
    assert source([SQLITE, KAFKA]).costs == Costs(110, 90, 50, 60, 5, 2_850, 400_000)
    options = source([SQLITE])
    assert (options.costs, options.body) == (Costs(92, 80, 43), SQLITE)


def test_a_peer_is_not_taken_for_us() -> None:
    with pytest.raises(MeshError, match="run1"):
        source([{**KAFKA, "subject": "restate"}])


def test_without_cpu_times_there_are_no_costs() -> None:
    assert costs_of(body("run1", figure("runs_per_s", 7))) is None


def test_a_measured_point_stands_beside_what_the_model_says() -> None:
    found = {check.what: check for check in checks([SQLITE, GROWTH])}
    assert found["run1"].predicted == pytest.approx(2e6 / 215)
    assert found["run1"].error == pytest.approx(2e6 / 215 / 9_000 - 1)
    assert found["run1"].station == "cores"
    one, two = found["growth-io, 1 processes"], found["growth-io, 2 processes"]
    assert (one.measured, two.measured) == (300, 590)
    assert 1.8 * one.predicted < two.predicted < 2 * one.predicted
    assert one.station == two.station == "lanes"


def test_the_scale_workload_is_checked_with_the_size_of_its_bursts() -> None:
    scaled = body("scale", *(figure("runs_per_s", 300.0 * n, at={"workers": n}) for n in (1, 8)))
    found = {check.what: check.predicted for check in checks([SQLITE, scaled])}
    assert found["scale, 8 workers"] < 8 * found["scale, 1 workers"]
    longer = {**scaled, "settings": {"seconds": 500.0 * ROUNDS}}
    assert {c.what: c.predicted for c in checks([SQLITE, longer])}["scale, 8 workers"] > found["scale, 8 workers"]


def test_what_is_added_to_a_wait_is_that_of_the_io_workload() -> None:
    io = body("io", *(figure("added_ms", ms, at={"wait_ms": wait}) for wait, ms in ((5, 4), (100, 4.5), (1_000, 9))))
    assert added_ms([io], "sqlite") == 4.5
    assert added_ms([io], "kafka") == added_ms([], "sqlite") == 5


def test_what_open_runs_take_comes_from_state_and_recovery() -> None:
    costs, state, recovery = state_source([STATE, RECOVERY])
    assert costs == StateCosts(936, 68, 25)
    assert (state, recovery) == (STATE, RECOVERY)
    with pytest.raises(MeshError, match="mesh bench state recovery"):
        state_source([STATE])


def test_the_comparison_is_a_table_for_people() -> None:
    lines = table(checks([SQLITE])).splitlines()
    assert lines[1].split() == ["run1", "sqlite", "9,000", "9,302", "+3%", "cores"]
