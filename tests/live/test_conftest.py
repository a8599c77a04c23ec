"""Tests that cannot run are reported, or fail the run if they are required."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.live
FOLDER = Path(__file__).parent


WORKERS = pytest.mark.parametrize("workers", ["0", "2"])


def run_on_a_bare_machine(workers: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Collect the live tests where neither Java nor Redis can be found."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", workers, str(FOLDER / "test_scripts.py")]
    bare = {"PATH": "/nowhere", "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=bare, cwd=FOLDER.parents[1])


@WORKERS
def test_a_machine_without_servers_runs_none_of_them_and_says_so_in_one_line(workers: str) -> None:
    done = run_on_a_bare_machine(workers)
    lines = [line for line in done.stdout.splitlines() if line.startswith("LIVE TESTS NOT RUN: ")]
    assert len(lines) == 1, done.stdout
    for thing in ("Java 17", "Maven", "redis-server"):
        assert thing in lines[0]
    assert "passed" not in done.stdout
    assert "failed" not in done.stdout


@WORKERS
def test_where_they_are_required_their_absence_fails_the_run(workers: str) -> None:
    done = run_on_a_bare_machine(workers, MESH_LIVE="required")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    said = done.stdout + done.stderr
    assert "MESH_LIVE=required, but " in said
    assert "Java 17, Maven, redis-server" in said
    assert "passed" not in said
