"""`python -m bench`: workloads one after the other, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.mesh_processes import ROOT


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    command = [sys.executable, "-m", "bench", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_results_of_all_that_were_named_are_kept(tmp_path: Path) -> None:
    done = run("board", "memory", "--for", "50ms", "--to", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"mesh-board-sqlite.json", "mesh-memory-sqlite.json"}
    assert done.stdout.count("== mesh bench ") == 2


def test_a_workload_that_fails_fails_the_whole(tmp_path: Path) -> None:
    done = run("memory", "--for", "never", "--to", str(tmp_path))
    assert done.returncode == 1
    assert "--for" in done.stderr


@pytest.mark.parametrize("name", ["run2", "recoverie"])
def test_a_name_that_nothing_has_is_refused(name: str) -> None:
    done = run(name)
    assert done.returncode == 2
    assert f"unknown benchmark {name!r}" in done.stderr
