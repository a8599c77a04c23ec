"""docs/guide/scaling.md: its blocks are made from results, its text is left alone."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.mesh_processes import ROOT
from bench.report import save_result
from bench.scaling_page import BLOCKS, filled
from mesh.core.errors import ConfigInvalid, MeshError
from tests.bench.canned import body, figure
from tests.bench.test_costs import GROWTH, KAFKA, RECOVERY, SQLITE, STATE, run

RUN3 = run("run3", "sqlite", 3_700, orchestrator=167, worker=239, client=48)
IO = body(
    "io",
    figure("added_ms", 4.4, unit="ms", at={"wait_ms": 5}),
    figure("worker_memory_mib", 61, unit="MiB", at={"tasks": 1_000}),
    figure("tasks_at_once", 1_000, unit="tasks", at={"tasks": 1_000}),
)
BODIES: list[dict[str, Any]] = [SQLITE, KAFKA, RUN3, GROWTH, STATE, RECOVERY, IO]
PAGE = ROOT / "docs/guide/scaling.md"


def block(name: str, bodies: list[dict[str, Any]]) -> str:
    text = filled(f"before\n<!-- begin {name} -->\nold\n<!-- end -->\nafter\n", bodies)
    assert text.startswith(f"before\n<!-- begin {name} -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    return text


@pytest.mark.parametrize("name", BLOCKS)
def test_every_block_is_a_well_formed_table_and_making_it_twice_changes_nothing(name: str) -> None:
    text = block(name, BODIES)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 2
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
    assert filled(text, BODIES) == text


def test_the_page_has_every_block_once_and_no_other() -> None:
    assert re.findall(r"<!-- begin (\w+) -->", PAGE.read_text("utf-8")) == list(BLOCKS)


def test_no_number_of_a_measuring_stands_outside_the_blocks() -> None:
    text = re.sub(r"<!-- begin .*?<!-- end -->", "", PAGE.read_text("utf-8"), flags=re.DOTALL)
    assert not re.findall(r"\d[\d,.]* (?:runs/s|µs|ms|MiB|MB|records)", text)


def test_an_unknown_block_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="sizes"):
        filled("<!-- begin sizes -->\n<!-- end -->", BODIES)


def test_numbers_name_the_command_that_measured_them() -> None:
    for name in ("costs", "sizing", "state", "lanes"):
        assert re.search(r"`mesh bench \w+ --for 5s`, commit 8e40541", block(name, BODIES))


def test_a_page_without_a_broker_says_that_one_is_missing() -> None:
    without = [one for one in BODIES if one is not KAFKA]
    assert "No broker's CPU time" in block("sizing", without)
    assert "No broker's CPU time" not in block("sizing", BODIES)


def test_without_results_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="run1"):
        block("sizing", [])
    shutil.copy(PAGE, tmp_path / "page.md")
    done = command("--results", str(tmp_path), "--page", str(tmp_path / "page.md"))
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert (tmp_path / "page.md").read_bytes() == PAGE.read_bytes()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    full = [sys.executable, "-m", "bench.scaling_page", *arguments]
    return subprocess.run(full, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_one_command_fills_the_page_and_check_notices_a_difference(tmp_path: Path) -> None:
    for one in BODIES:
        save_result(one, tmp_path / "results")
    page = tmp_path / "page.md"
    page.write_text("# Title\n<!-- begin costs -->\n<!-- end -->\n", "utf-8")
    where = ("--results", str(tmp_path / "results"), "--page", str(page))
    assert command("--check", *where).returncode == 1
    done = command(*where)
    assert done.returncode == 0, done.stderr
    assert "| run1 on kafka | 110 | 90 | 50 | 60 | 5 | 2,850 | 400,000 |" in page.read_text("utf-8")
    assert command("--check", *where).returncode == 0
