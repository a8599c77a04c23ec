"""Entries of the index as rows, and queries as SQL."""

import sqlite3

import pytest

from mesh.adapters.sqlite.run_rows import NAMES, conditions_of, endings_condition, entry_of, row_of
from mesh.adapters.sqlite.run_words import SCHEMA, RunWords
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


@pytest.fixture
def words() -> RunWords:
    connection = sqlite3.connect(":memory:")
    connection.execute(SCHEMA)
    return RunWords(lambda: connection)


@pytest.mark.parametrize(
    "entry",
    [
        ENTRY,
        RunEntry("r"),
        RunEntry("r", home=0, inbox=[(1, 1)], requests=("q",), opened_ms=5),
        RunEntry("r", late="failed"),
    ],
)
def test_an_entry_comes_back_as_it_was(entry: RunEntry, words: RunWords) -> None:
    row = row_of(entry, words)
    assert len(row) == len(NAMES)
    assert entry_of(row, words) == entry


def test_agents_are_in_one_order_whatever_came_first(words: RunWords) -> None:
    assert row_of(RunEntry("r", agents=("b", "a")), words) == row_of(RunEntry("r", agents=("a", "b")), words)


def test_a_query_without_conditions_has_none(words: RunWords) -> None:
    assert conditions_of(RunQuery(state="failed"), words) == ([], [])


def test_names_are_compared_whole_and_brackets_are_plain(words: RunWords) -> None:
    wanted, _, other = [words.number(text) for text in (",a,b,", ",aa,", ",b,a,")]
    texts, values = conditions_of(RunQuery(agent="a", subject="s[1]*", tasks_min=0), words)
    assert [text.split()[0] for text in texts] == ["agents", "+number", "tasks"]
    assert values == [f"[{wanted},{other}]", "s[[]1]*", 0]


def test_what_no_run_has_is_wanted_of_none(words: RunWords) -> None:
    words.number("failed")
    assert conditions_of(RunQuery(type="ask", code="x"), words)[1] == ["[]", "[]"]
    assert endings_condition(RunQuery(state="failed"), words)[1] == "[1]"
    assert endings_condition(RunQuery(state="completed"), words)[1] == "[]"
