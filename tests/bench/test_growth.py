"""`python -m bench.growth`: more and more worker processes."""

import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from bench.agents import compute
from bench.costs import checks
from bench.field import Setup
from bench.growth import CPU, IO, WAIT_MS, Work, calibrated, measure, save
from bench.mesh_processes import ROOT
from bench.report import results
from tests.bench.test_costs import SQLITE


def test_computing_takes_as_long_as_requested() -> None:
    rounds = calibrated(20)
    used = []
    for _ in range(5):
        began = time.process_time()
        compute(rounds)
        used.append((time.process_time() - began) * 1_000)
    assert 8 < min(used) < 40


def test_ideal_is_what_lanes_or_cores_allow() -> None:
    assert IO.ideal(4, 2) == 4 * 16 * 1_000 / WAIT_MS
    assert CPU.ideal(4, 2) == CPU.ideal(2, 2) == 2 * CPU.ideal(1, 2)


@pytest.mark.parametrize("work", [IO, CPU], ids=lambda work: work.name)
async def test_a_tiny_run_measures_speed_and_what_it_took(work: Work, tmp_path: Path) -> None:
    body = await measure(work, Setup(seconds=0.05), [1])
    found = {figure["name"]: figure for figure in body["figures"]}
    assert set(found) >= {"runs_per_s", "worker_cpu_us_per_run", "records_per_run", "runs_per_burst"}
    assert found["records_per_run"]["value"] == pytest.approx(5, abs=0.5)
    assert found["ideal_runs_per_s"]["limit"]
    assert found["runs_per_s"]["value"] < 1.5 * found["ideal_runs_per_s"]["value"]
    assert {tuple(figure["at"]) for figure in body["figures"]} == {("processes",)}
    path = save(body, tmp_path)
    assert path.name == f"{work.name}-sqlite.json"
    (again,) = results(tmp_path)
    assert [check.what for check in checks([again])] == [f"{work.name}, 1 processes"]


def test_check_measures_nothing_and_compares(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_bytes(orjson.dumps(SQLITE))
    command = [sys.executable, "-m", "bench.growth", "--check", "--to", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("run1 ")
    assert len(list(tmp_path.iterdir())) == 1


def test_a_duration_that_is_invalid_is_refused() -> None:
    command = [sys.executable, "-m", "bench.growth", "--for", "soon"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "--for" in done.stderr
