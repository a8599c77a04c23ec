"""The tree of a run, drawn from a history that was made by hand."""

import time

import pytest

from mesh.cli.framework.output import Output
from mesh.cli.views.run_view import id_of, trace_of, tree
from mesh.core.history.task_attempts import DONE, TaskAttempt, TaskHistory
from mesh.core.history.timeline import History
from mesh.core.protocol.event import REQUESTED, derive_id
from tests.builders import AT_MS, event, topology


def drawn(capsys: pytest.CaptureFixture[str], *tasks: tuple[str, str]) -> list[str]:
    """The lines for tasks given as (name, parent), without times."""
    history = History(topology(a="ask -> answer"), "run-1", partition=0)
    for name, parent in tasks:
        history.tasks[name] = TaskHistory(name, name, "ask", 1, (name,), parent, "", AT_MS, DONE, AT_MS + 1)
    tree(Output(), history, indent="")
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


def test_the_time_beside_an_agent_is_that_of_its_function(capsys: pytest.CaptureFixture[str]) -> None:
    history = History(topology(a="ask -> answer"), "run-1", partition=0)
    task = TaskHistory("t", "a", "ask", 1, ("a",), "", "", AT_MS, DONE, AT_MS + 18_480)
    task.attempts.append(TaskAttempt(1, AT_MS, AT_MS + 18_480, waited_ms=18_400))
    history.tasks["t"] = task
    tree(Output(), history, indent="")
    assert capsys.readouterr().out.split() == ["└─", "a", "–", "80", "ms", "waited", "18.40", "s"]


def test_the_trace_is_that_of_the_request_or_one_made_of_the_run() -> None:
    history = History(topology(a="ask -> answer"), "run-1", partition=0)
    assert trace_of(history) == derive_id("trace", "run-1")
    history.request = event(REQUESTED, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    assert trace_of(history) == "0af7651916cd43dd8448eb211c80319c"
