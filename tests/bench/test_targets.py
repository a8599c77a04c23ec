"""The numbers to reach, line by line, and the strict gates that they are."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import targets
from bench.gates import Gate, judge, read
from bench.mesh_processes import ROOT
from bench.report import save_result
from bench.workloads import NAMES
from tests.bench.canned import body, figure

RUN1 = body("run1", figure("runs_per_s", 9_000))
LOW = Gate("run1", "runs_per_s", at_least=8_000, line="run1 embedded", why="run1")
HIGH = LOW._replace(at_least=10_000)


def lines(*gates: Gate) -> list[str]:
    return [line for line in targets.chapter([RUN1], gates).splitlines() if line.startswith("| run1")]


def test_a_line_says_what_is_wanted_what_was_measured_and_by_which_command() -> None:
    (line,) = lines(LOW)
    made = "`mesh bench run1 --for 5s`, commit 8e40541"
    assert line == f"| run1 embedded | ≥ 8,000 runs/s | 9,000 runs/s | yes | {made} |"


def test_a_line_that_is_not_reached_points_at_its_explanation() -> None:
    (line,) = lines(HIGH)
    assert "| **no** [why](performance.md#run1) |" in line


def test_what_was_not_measured_is_neither_reached_nor_not() -> None:
    (line,) = lines(LOW._replace(log="kafka"))
    assert line == "| run1 embedded | ≥ 8,000 | not measured | – | – |"
    (line,) = lines(LOW._replace(at={"workers": 3}))
    assert "| not measured | – |" in line


def test_a_line_about_several_logs_has_a_row_for_each() -> None:
    text = targets.chapter([RUN1, {**RUN1, "log": "kafka"}], [LOW])
    assert "| run1 embedded, sqlite |" in text
    assert "| run1 embedded, kafka |" in text


def test_every_strict_gate_is_a_line_about_a_workload_with_a_chapter_that_explains_it() -> None:
    gates = read(targets.FILE)
    assert {gate.workload for gate in gates} <= set(NAMES)
    headings = re.findall(
        r"^## (.+)$", (ROOT / "docs" / "reference" / targets.EXPLAINED).read_text("utf-8"), re.MULTILINE
    )
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    for gate in gates:
        assert gate.line
        assert gate.why in anchors, gate.line


def test_every_strict_gate_is_about_measured_figures() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "bench").rglob("*.py"))
    for gate in read(targets.FILE):
        stem = re.sub(r"^p\d+_ms$", "p{percent:g}_ms", gate.figure)
        assert f'"{stem}"' in sources, gate.figure


def test_no_line_is_twice() -> None:
    names = [gate.line for gate in read(targets.FILE)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("bound", "code", "mark"), [(8_000, 0, "✓"), (10_000, 1, "✗")])
def test_kept_results_are_judged_by_one_command(tmp_path: Path, bound: int, code: int, mark: str) -> None:
    save_result(RUN1, tmp_path / "results")
    file = tmp_path / "gates.toml"
    file.write_text(f'[[gate]]\nworkload = "run1"\nfigure = "runs_per_s"\nat_least = {bound}\n')
    done = command(str(file), "--results", str(tmp_path / "results"))
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith(f"{mark} run1 runs_per_s on sqlite: 9,000")


def test_what_was_not_measured_does_not_hold(tmp_path: Path) -> None:
    done = command("bench/gates-strict.toml", "--results", str(tmp_path))
    assert done.returncode == 1
    *lines, last = done.stdout.splitlines()
    assert all(line.startswith("· ") for line in lines)
    assert last == f"0 reached, 0 not reached, {len(lines)} not measured"


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    full = [sys.executable, "-m", "bench.gates", *arguments]
    return subprocess.run(full, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_result_that_was_judged_is_known() -> None:
    (verdict,) = judge([LOW], [RUN1])
    assert verdict.body is RUN1
