"""The tree of a run, drawn from a history that was made by hand."""

import time

import pytest

from mesh.cli.screen import Screen
from mesh.cli.story import id_of, tree
from mesh.core.history import DONE, History, TaskStory
from tests.builders import AT_MS, topology


def drawn(capsys: pytest.CaptureFixture[str], *tasks: tuple[str, str]) -> list[str]:
    """The lines for tasks given as (name, parent), without times."""
    history = History(topology(a="ask -> answer"), "run-1", partition=0)
    for name, parent in tasks:
        history.tasks[name] = TaskStory(name, name, "ask", 1, (name,), parent, "", AT_MS, DONE, AT_MS + 1)
    tree(Screen(), history, indent="")
    return [line.partition("  –")[0].rstrip() for line in capsys.readouterr().out.splitlines()]


def test_children_stand_below_their_parent_in_the_order_of_dispatch(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = (("a", ""), ("b", ""), ("a1", "a"), ("a2", "a"), ("b1", "b"), ("a11", "a1"))
    assert drawn(capsys, *tasks) == ["├─ a", "│  ├─ a1", "│  │  └─ a11", "│  └─ a2", "└─ b", "   └─ b1"]


def test_a_run_without_tasks_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(capsys) == ["no agent worked on it"]


def test_a_deep_and_a_wide_run_are_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    began = time.process_time()
    deep = [(f"t{n}", f"t{n - 1}" if n else "") for n in range(1_000)]
    lines = drawn(capsys, *deep)
    assert (len(lines), lines[-1].strip(), max(map(len, lines)) < 100) == (1_000, "… 1000 deep └─ t999", True)
    assert len(drawn(capsys, *((f"t{n}", "") for n in range(5_000)))) == 5_000
    assert time.process_time() - began < 10


def test_ids_that_were_made_are_shortened_and_given_ones_are_not() -> None:
    assert id_of("c5d55f92449cf62a7cc42d8b") == "c5d55f92449c"
    assert id_of("case-2026-000000000000000000017") == "case-2026-000000000000000000017"
