"""Which runs are wanted."""

import pytest

from mesh.core.history.run_query import RunQuery, run_attributes
from mesh.core.history.run_summary import Summary
from mesh.core.protocol.event import Usage

FAILED = Summary(
    *("r1", "ask", "order-17", "failed", 1_000, 3_500, 4, ("visits",), ("pricing",)),
    agents=("stock", "pricing"),
    codes=("visits", "timeout"),
    used=Usage(500_000, 9),
)
OPEN = Summary("r2", "ask", "order-18", "open", 2_000, None, 1, (), ())
PAUSED = OPEN._replace(run_id="r3", paused=True)


@pytest.mark.parametrize(
    ("query", "fits"),
    [
        (RunQuery(), "failed open paused"),
        (RunQuery(state="open"), "open paused"),
        (RunQuery(state="paused"), "paused"),
        (RunQuery(state="ended"), "failed"),
        (RunQuery(state="failed"), "failed"),
        (RunQuery(state="completed"), ""),
        (RunQuery(type="ask"), "failed open paused"),
        (RunQuery(type="other"), ""),
        (RunQuery(subject="order-1?"), "failed open paused"),
        (RunQuery(subject="*7"), "failed"),
        (RunQuery(agent="pricing"), "failed"),
        (RunQuery(code="timeout"), "failed"),
        (RunQuery(since_ms=2_000), "open paused"),
        (RunQuery(until_ms=2_000), "failed"),
        (RunQuery(slower_than_ms=2_499), "failed open paused"),
        (RunQuery(slower_than_ms=2_500), "open paused"),
        (RunQuery(tasks_min=4), "failed"),
        (RunQuery(usd_micros_min=500_000), "failed"),
        (RunQuery(usd_micros_min=500_001), ""),
    ],
)
def test_every_field_must_fit(query: RunQuery, fits: str) -> None:
    test = query.test(10_000)
    named = (("failed", FAILED), ("open", OPEN), ("paused", PAUSED))
    assert " ".join(name for name, run in named if test(run)) == fits


@pytest.mark.parametrize(
    ("sort", "first"), [("started", "r2"), ("ended", "r1"), ("took", "r2"), ("tasks", "r1"), ("spent", "r1")]
)
def test_the_newest_longest_or_largest_comes_first(sort: str, first: str) -> None:
    assert min((FAILED, OPEN), key=RunQuery(sort=sort).order(10_000)).run_id == first


def test_which_parts_of_an_index_are_asked() -> None:
    assert RunQuery(state="open").endings == ()
    assert RunQuery(state="failed").endings == ("failed",)
    assert len(RunQuery().endings) == len(RunQuery(state="ended").endings) > 3
    assert RunQuery().takes_open
    assert not RunQuery(state="failed").takes_open
    assert not RunQuery(sort="ended").takes_open


def test_a_condition_may_name_what_a_list_shows() -> None:
    found = run_attributes(FAILED)
    assert (found["state"], found["took_ms"], found["usd"], found["agents"]) == (
        "failed",
        2_500,
        0.5,
        ["stock", "pricing"],
    )
    assert run_attributes(PAUSED)["state"] == "paused"
