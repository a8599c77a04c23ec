"""What answers cost, by every name that they can be summed by. All sums are computed by hand."""

import pytest

from mesh.core.metrics.costs import BY, UNKNOWN, Bill, Cost
from mesh.core.protocol.event import Event, Usage
from mesh.core.protocol.record import Record, StoredRecord
from tests.builders import event
from tests.core.metrics.scenario import BEGIN_MS, INBOX, answer, stored


def spent(run: str, agents: str, at_ms: int, usd_micros: int, tokens: int, *, code: str = "") -> Event:
    one = answer(run, agents, at_ms, 5, code=code)
    one.usage = Usage(usd_micros, tokens)
    return one


EVENTS = [
    event(id="r1", type="ask", run_id="run-1", at_ms=BEGIN_MS - 10),
    event(id="r2", type="beg", run_id="run-2", at_ms=BEGIN_MS),
    spent("run-1", "plan", -5, 9_000_000, 9),  # before the time that is asked for
    spent("run-1", "plan", 10, 2_000, 200),
    spent("run-1", "plan>ship", 20, 1_000, 0, code="exception"),
    spent("run-1", "plan>ship", 30, 1_000, 50),
    spent("run-2", "plan", 86_400_000, 4_000, 0),
    spent("run-3", "plan", 86_400_000, 0, 50),
    spent("run-2", "plan>ship", 86_400_000, 0, 0),
]


def billed(by: str) -> Bill:
    bill = Bill(by, BEGIN_MS, lambda at_ms: f"day {(at_ms - BEGIN_MS) // 86_400_000}")
    garbage: list[Record] = [StoredRecord(*INBOX, 99, BEGIN_MS, b"k", b"x", [])]
    for record in (*stored(INBOX, EVENTS), *garbage):
        bill.take(record)
    return bill


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ("agent", [("plan", Cost(3, 250, 6_000), 3, 0.75), ("ship", Cost(2, 50, 2_000), 1, 0.25)]),
        (
            "run",
            [
                ("run-1", Cost(3, 250, 4_000), 1, 0.5),
                ("run-2", Cost(1, 0, 4_000), 1, 0.5),
                ("run-3", Cost(1, 50, 0), 1, 0.0),
            ],
        ),
        (
            "type",
            [
                ("ask", Cost(3, 250, 4_000), 1, 0.5),
                ("beg", Cost(1, 0, 4_000), 1, 0.5),
                (UNKNOWN, Cost(1, 50, 0), 1, 0.0),
            ],
        ),
        ("day", [("day 0", Cost(3, 250, 4_000), 1, 0.5), ("day 1", Cost(2, 50, 4_000), 2, 0.5)]),
    ],
)
def test_costs_are_summed_by_name(by: str, rows: list[tuple[str, Cost, int, float]]) -> None:
    bill = billed(by)
    assert bill.rows(in_order=by == "day") == rows
    assert bill.total == ("total", Cost(5, 300, 8_000), 3, 1.0)
    assert bill.answers == 6


def test_where_nothing_cost_money_the_shares_are_those_of_tokens() -> None:
    bill = Bill("agent", 0, str)
    for record in stored(INBOX, [spent("run-1", "plan", 0, 0, 30), spent("run-1", "plan>ship", 0, 0, 10)]):
        bill.take(record)
    assert [(row.name, row.share) for row in bill.rows()] == [("plan", 0.75), ("ship", 0.25)]


def test_without_usage_there_is_no_row() -> None:
    bill = Bill("agent", 0, str)
    for record in stored(INBOX, [answer("run-1", "plan", 0, 5)]):
        bill.take(record)
    assert (bill.rows(), bill.total.cost, bill.answers) == ([], Cost(), 1)
    assert set(BY) == {"agent", "run", "type", "day"}
