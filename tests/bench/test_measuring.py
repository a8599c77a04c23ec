"""A workload run once: its result, its command, its table, and what becomes of an error."""

import pytest

from bench.field import Setup
from bench.measuring import chosen, command, measure, rows
from bench.report import Figure, middle
from bench.workloads import NAMES, Workload
from mesh.core.errors import MeshError, NotFound
from tests.bench.canned import body, figure

WORKLOAD = Workload("run1", "what", "How.", lambda setup: answer(setup))


async def answer(setup: Setup) -> list[Figure]:
    if setup.seconds > 60:
        raise TimeoutError
    return [middle("runs_per_s", [1.0, 2.0, 3.0], "runs/s")]


async def test_a_result_names_its_command_and_its_log_but_no_address() -> None:
    found = await measure(WORKLOAD, Setup(log="kafka://secret:9092", board="redis://secret", seconds=2.5))
    assert found["command"] == "mesh bench run1 --for 2.5s --log kafka:… --board redis:…"
    assert (found["log"], found["settings"]) == ("kafka", {"seconds": 2.5, "board": "redis"})
    assert "secret" not in str(found)


async def test_where_no_log_takes_part_none_is_named() -> None:
    found = await measure(WORKLOAD._replace(on_log=False), Setup(log="kafka://broker:9092"))
    assert (found["log"], found["command"]) == ("none", "mesh bench run1 --for 5s")


async def test_a_workload_that_comes_to_nothing_is_an_error_with_its_name() -> None:
    with pytest.raises(MeshError, match="run1 came to nothing: its runs did not end in time"):
        await measure(WORKLOAD, Setup(seconds=61))


def test_names_are_chosen_and_a_wrong_one_is_reported_with_what_was_meant() -> None:
    assert [workload.name for workload in chosen(["fold", "run1"])] == ["fold", "run1"]
    assert [workload.name for workload in chosen([])] == list(NAMES)
    with pytest.raises(NotFound, match="Did you mean 'latency'"):
        chosen(["latenzy"])


def test_the_command_of_an_embedded_measuring_is_short() -> None:
    assert command("fold", Setup(seconds=60.0)) == "mesh bench fold --for 60s"


def test_the_table_has_a_row_for_each_figure() -> None:
    result = body(
        "scale",
        figure("runs_per_s", 12_345, at={"workers": 2, "wait_ms": 1_000}, samples=[12_000, 13_000]),
        figure("ideal_runs_per_s", 20_000, limit=True),
        figure("p50_ms", 1.25, unit="ms", samples=[[1.25, 10], [3.0, 1]]),
    )
    assert [tuple(row) for row in rows(result)] == [
        ("runs_per_s", "workers 2, wait_ms 1,000", "12,345 runs/s", "12,000 … 13,000"),
        ("ideal_runs_per_s (limit)", "", "20,000 runs/s", ""),
        ("p50_ms", "", "1.25 ms", ""),
    ]
