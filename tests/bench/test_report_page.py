"""The report page, made of canned results."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.mesh_processes import ROOT
from bench.plot import svg
from bench.report import save_result
from bench.report_page import page, write
from mesh.core.errors import MeshError
from tests.bench.canned import body, figure


@pytest.fixture(autouse=True)
def _folder_of_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set the folder of matplotlib for one test; a plot sets it for its process otherwise."""
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))


BODIES: list[dict[str, Any]] = [
    body(
        "hop",
        figure("hops_per_s", 40_000, unit="hops/s", samples=[39_000, 40_000, 41_500]),
        figure("log_alone_per_s", 90_000, unit="records/s", limit=True),
    ),
    body("hop", figure("hops_per_s", 50_000, unit="hops/s"), subject="aiokafka", log="kafka", safe=True),
    body(
        "scale",
        *(figure("runs_per_s", 300 * n, at={"workers": n}, samples=[290 * n, 310 * n]) for n in (1, 2, 4)),
        *(figure("ideal_runs_per_s", 320 * n, at={"workers": n}, limit=True) for n in (1, 2, 4)),
    ),
    body(
        "latency",
        figure("p50_ms", 3.1, unit="ms", better="less", at={"rate_per_s": 50}, samples=[[3.1, 90], [9.0, 10]]),
        figure("max_ms", 9.04, unit="ms", better="less", at={"rate_per_s": 50}),
    ),
]


def test_every_table_stands_under_the_command_that_made_it() -> None:
    text = page(BODIES, {})
    for one in BODIES:
        assert f"`{one['command']}`" in text
        assert one["how"] in text
    tables = text.count("| figure | at | value | samples |")
    assert tables == text.count("· `mesh bench ") == len(BODIES)
    assert "| hops_per_s |  | 40,000 hops/s | 39,000 … 41,500 |" in text
    assert "| log_alone_per_s (limit) |" in text
    assert "commit 8e40541, 2026-11-20" in text


def test_peers_stand_beside_us_with_what_a_kill_does_to_them() -> None:
    chapter = page(BODIES, {}).partition("## hop")[2].partition("\n## ")[0]
    assert "**mesh on sqlite** ·" in chapter
    assert "**aiokafka on kafka**, safe at kill -9 ·" in chapter


def test_a_peer_that_is_measured_another_way_says_so_behind_ours() -> None:
    peer = {**BODIES[1], "how": "Measured in turn."}
    text = page([peer, BODIES[0]], {})
    places = [text.index(part) for part in (BODIES[0]["how"], "**mesh on", "**aiokafka on", "Measured in turn.")]
    assert places == sorted(places)
    assert page(BODIES[:2], {}).count(BODIES[0]["how"]) == 1


def test_the_tables_are_well_formed() -> None:
    for block in page(BODIES, {}).split("\n\n"):
        if block.startswith("| "):
            assert len({line.count("|") for line in block.strip().splitlines()}) == 1


@pytest.mark.parametrize("workload", ["hop", "scale", "latency"])
def test_a_plot_is_an_image_that_is_the_same_each_time(workload: str) -> None:
    pytest.importorskip("matplotlib")
    bodies = [one for one in BODIES if one["workload"] == workload]
    drawn = svg(workload, bodies)
    assert drawn is not None
    assert b"<svg" in drawn
    assert drawn == svg(workload, bodies)


def test_the_limit_and_every_subject_are_in_the_plot() -> None:
    pytest.importorskip("matplotlib")
    drawn = (svg("hop", BODIES[:2]) or b"").decode()
    for text in ("log alone: 90,000", "mesh on sqlite", "aiokafka on kafka", "hop: what hop measures"):
        assert text in drawn


def test_a_workload_without_its_figure_has_no_plot() -> None:
    pytest.importorskip("matplotlib")
    assert svg("run1", [body("run1", figure("another", 1))]) is None


def test_one_command_writes_page_and_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for one in BODIES:
        save_result(one, tmp_path / "results")
    where = ["--results", str(tmp_path / "results"), "--docs", str(tmp_path / "docs")]
    command = [sys.executable, "-m", "bench.report_page", *where]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "docs/benchmarks.md").read_text()
    for name in ("hop", "scale", "latency"):
        assert f"(benchmarks/{name}.svg)" in text
        assert (tmp_path / f"docs/benchmarks/{name}.svg").is_file()


def test_without_results_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="no results"):
        write(tmp_path, tmp_path / "docs")
    assert not (tmp_path / "docs").exists()
