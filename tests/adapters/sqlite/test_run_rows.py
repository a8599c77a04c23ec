"""Entries of the index as rows, and queries as SQL."""

import pytest

from mesh.adapters.sqlite.run_rows import NAMES, conditions_of, entry_of, row_of
from mesh.core.history.run_entry import RunEntry
from mesh.core.history.run_query import RunQuery
from mesh.core.history.run_summary import Summary
from mesh.core.protocol.event import Usage

ENDED = Summary(
    *("r", "ask", "s", "failed", 1_000, 1_003, 3, ("visits", "visits"), ("b",)),
    starved=("j",),
    unrouted=("u",),
    overspent=("usd",),
    agents=("a", "b"),
    codes=("visits", "timeout"),
    used=Usage(5, 6),
)
ENTRY = RunEntry(
    *("r", 2, [(1, 4), (9_000, 9_001)], 1, [(7, 7)], "ask", "s", ("q-1", "q-2"), 1_000, ("a", "b"), ENDED, 1, "")
)


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY,
        RunEntry("r"),
        RunEntry("r", home=0, inbox=[(1, 1)], requests=("q",), opened_ms=5),
        RunEntry("r", late="failed"),
    ],
)
def test_an_entry_comes_back_as_it_was(entry: RunEntry) -> None:
    row = row_of(entry)
    assert len(row) == len(NAMES)
    assert entry_of(row) == entry


def test_agents_are_in_one_order_whatever_came_first() -> None:
    assert row_of(RunEntry("r", agents=("b", "a"))) == row_of(RunEntry("r", agents=("a", "b")))


def test_a_query_without_conditions_has_none() -> None:
    assert conditions_of(RunQuery(state="failed")) == ([], [])


def test_names_are_compared_whole_and_brackets_are_plain() -> None:
    texts, values = conditions_of(RunQuery(agent="a", subject="s[1]*", tasks_min=0))
    assert texts == ["instr(agents, ?)", "subject GLOB ?", "tasks >= ?"]
    assert values == [",a,", "s[[]1]*", 0]
