"""Flame graphs: what becomes of py-spy's stacks, and where py-spy is looked for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.flame import Box, boxes, spy, stacks, svg
from bench.mesh_processes import ROOT
from mesh.core.errors import NotFound

RUN = "<module> (runpy.py:1);main (mesh/cli/app.py:3);BaseEventLoop._run_once (asyncio/base_events.py:9)"
RAW = [
    f"{RUN};Loop.run (mesh/runtime/loop.py:5);step (mesh/core/state/partition_state.py:7) 60\n",
    f"{RUN};Loop.run (mesh/runtime/loop.py:5);append (mesh/adapters/log.py:7) 30\n",
    f"{RUN} 9\n",
    f"{RUN};EpollSelector.select (selectors.py:451) 1000\n",
    "Thread.run (threading.py:1);Writer._run (mesh/adapters/sqlite/storage/writer.py:98);"
    "Condition.wait (threading.py:2) 1000\n",
    f"{RUN};Loop.rare (mesh/runtime/loop.py:8) 0\n",
]


def test_threads_that_wait_do_not_count_and_the_plumbing_is_left_out() -> None:
    found = stacks(RAW)
    assert found.total() == 99
    assert found["Loop.run (mesh/runtime/loop.py:5)", "step (mesh/core/state/partition_state.py:7)"] == 60
    assert found["main (mesh/cli/app.py:3)", "BaseEventLoop._run_once (asyncio/base_events.py:9)"] == 9


def test_a_caller_is_as_wide_as_what_it_calls_and_lies_below_it() -> None:
    made = {box.name.partition(" (")[0]: box for box in boxes(stacks(RAW))}
    assert made["Loop.run"] == Box("Loop.run (mesh/runtime/loop.py:5)", 0, 0, 90)
    assert made["append"] == Box("append (mesh/adapters/log.py:7)", 1, 0, 30)
    assert made["step"] == Box("step (mesh/core/state/partition_state.py:7)", 1, 30, 60)
    assert "Loop.rare" not in made


def test_the_same_stacks_give_the_same_drawing_with_names_and_shares() -> None:
    drawn = svg(stacks(RAW), "run1 & more")
    assert drawn == svg(stacks(reversed(RAW)), "run1 & more")
    assert "run1 &amp; more · 99 samples" in drawn
    assert "<title>step (mesh/core/state/partition_state.py:7) 60.6%</title>" in drawn
    assert "<script" not in drawn


def test_without_py_spy_its_installation_is_explained() -> None:
    with pytest.raises(NotFound, match="no py-spy"):
        spy("/nowhere/py-spy")


def test_a_workload_that_has_no_services_is_refused() -> None:
    command = [sys.executable, "-m", "bench.flame", "state", "--to", "/nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "'state'" in done.stderr


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs" / "reference" / "flames").glob("*.svg")), ids=lambda path: path.stem
)
def test_graphs_that_are_kept_are_small_and_say_what_they_are_of(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text) < 200_000
    _, service, log = path.stem.split("-")
    assert re.search(rf"run1, {service} on {log} · commit \w+", text)
