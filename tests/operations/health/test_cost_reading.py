"""Costs of a real log, from a time on."""

import pytest

from mesh.adapters.sqlite import SqliteLog
from mesh.core.metrics.costs import Cost
from mesh.operations.health.cost_reading import read_costs
from tests.core.metrics.scenario import BEGIN_MS, MESH
from tests.operations.test_window_reading import CLOCK, log, play

__all__ = ["log"]


async def test_costs_and_completed_runs_since_a_time(log: SqliteLog) -> None:
    await play(log)
    bill, completed = await read_costs(log, MESH, "agent", BEGIN_MS, str)
    assert [(row.name, row.cost) for row in bill.rows()] == [("plan", Cost(1, 200, 2_000))]
    assert (bill.answers, completed) == (7, 1)
    bill, completed = await read_costs(log, MESH, "agent", BEGIN_MS + 4_500, str)
    assert (bill.rows(), bill.answers, completed) == ([], 2, 0)


@pytest.mark.parametrize("since_ms", [BEGIN_MS + 500])
async def test_the_type_of_a_run_is_known_from_an_earlier_request(log: SqliteLog, since_ms: int) -> None:
    await play(log)
    bill, _ = await read_costs(log, MESH, "type", since_ms, str)
    assert [(row.name, row.runs) for row in bill.rows()] == [("ask", 1)]
    assert CLOCK.at_ms >= since_ms
