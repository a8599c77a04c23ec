"""Every number, computed by hand for one recorded scenario (see `scenario`)."""

import pytest

from mesh.core.metrics.aggregate import merged
from mesh.core.metrics.definitions import DEFINITIONS, Measured, numbers
from mesh.core.metrics.windows import PartitionWindows, Scoped, add_window, window_over
from tests.core.metrics.scenario import BEGIN_MS, MESH, scenario

LENGTH_MS = 20_000
OF_MESH = {
    "rate_in": 2 / 20,
    "rate": 7 / 20,
    "rate_out": 3 / 20,  # planned twice, shipped once
    "error_rate": 4 / 7,
    "retry_rate": 1 / 7,
    "timeout_rate": 1 / 7,
    "fallback_rate": 2 / 7,  # hand in the place of ship, twice
    "completion_rate": 1 / 2,
    "cycle_rate": 1 / 2,
    "cascade_depth": 2,  # ship, then hand
    # run-1: 4,000 ms, of which plan 300 + ship 1,600 + its fallback hand 800 = 2,700 are critical
    # run-2: 13,000 ms, of which plan 900 and 500 + ship 2,000 + hand 700 = 4,100 are critical
    "overhead": (4_000 - 2_700 + 13_000 - 4_100) / (4_000 + 13_000),
    "decision_p95": 100,  # of 100 and 50
    "context_drift": 0,
    "p50": 800,  # of 300, 500, 700, 800, 900, 1,600, 2,000
    "p95": 2_000,
    "p99": 2_000,
    "waiting_p50": 0,
    "waiting_p95": 100,
    "waiting_p99": 100,
    "run_p50": 4_000,
    "run_p95": 13_000,
    "tokens": 200,
    "usd": 0.002,
    "tokens_per_run": 200,
    "usd_per_run": 0.002,
    "dead_letters": 1,
    "refusals": 1,
    "overrides": 1,
}


def whole() -> Scoped:
    base: dict[int, Scoped] = {}
    for place, records in scenario().items():
        part = PartitionWindows(MESH, place)
        part.take(records)
        for start, scopes in part.windows.items():
            add_window(base, start, scopes)
    return window_over(base, BEGIN_MS, LENGTH_MS)


def test_every_number_of_the_mesh_equals_the_one_computed_by_hand() -> None:
    mesh = whole()["mesh"]
    found = numbers(Measured(mesh, mesh, LENGTH_MS))
    assert found.keys() == OF_MESH.keys() == DEFINITIONS.keys()
    for name, value in OF_MESH.items():
        assert found[name] == pytest.approx(value, rel=0.01, abs=0.001), name


def test_numbers_of_an_agent() -> None:
    scopes = whole()
    found = numbers(Measured(scopes["agent:plan"], scopes["mesh"], LENGTH_MS))
    assert found["error_rate"] == pytest.approx(1 / 3)
    assert found["p95"] == pytest.approx(900, rel=0.01)
    assert found["usd_per_run"] == 0.002  # what this agent added to a completed run
    assert found["overhead"] is found["completion_rate"] is None
    hand = numbers(Measured(scopes["agent:hand"], scopes["mesh"], LENGTH_MS))
    assert (hand["fallback_rate"], hand["dead_letters"], hand["cascade_depth"]) == (1, 1, 2)


def test_events_of_a_type_are_counted() -> None:
    scopes = whole()
    assert scopes["type:ask"].counts == {"events": 2, "errors": 1}
    assert scopes["type:planned"].counts == {"events": 2}


def test_without_records_rates_have_no_value() -> None:
    nothing = merged([])
    found = numbers(Measured(nothing, nothing, LENGTH_MS))
    assert {name for name, value in found.items() if value is not None} == {
        *("rate_in", "rate", "rate_out", "tokens", "usd", "dead_letters", "refusals", "overrides")
    }
