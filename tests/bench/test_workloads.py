"""Workloads: the interface all of them keep, and a tiny real run of those that are cheap.

MESH_BENCH_TESTS=all runs the others too, which take up to a minute in all.
"""

import importlib
import os
import pkgutil

import orjson
import pytest

import bench.workloads
from bench.field import Setup, written
from bench.histogram import Histogram
from bench.load import burst, open_loop, watching
from bench.report import LESS, MORE, NONE
from bench.workloads import NAMES, Workload, hotkey, io, latency, load, payload, state

CHEAP = ("hop", "run1", "join", "fan", "board", "memory")
EXPENSIVE = tuple(name for name in NAMES if name not in CHEAP)
EXPECTED = {
    "hop": {"hops_per_s", "log_alone_per_s", "producer_alone_per_s", "python_alone_per_s"},
    "run1": {
        *("runs_per_s", "worker_cpu_us_per_run", "orchestrator_cpu_us_per_run", "records_per_run", "bytes_per_run"),
        *("log_alone_runs_per_s", "python_alone_runs_per_s"),
    },
    "fan": {"runs_per_s", "tasks_per_s"},
    "board": {"p50_us", "p99_us", "increments_per_s"},
    "memory": {"idle_core_percent", "idle_memory_mib"},
    "latency": {"p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms"},
    "io": {"added_ms", "added_percent", "took_of_ideal", "worker_memory_mib"},
    "state": {"cpu_us_per_event", "most_to_fewest", "open_run_bytes"},
    "fold": {"events_per_s"},
    "replay_agent": {"worker_tasks_per_s", "replay_tasks_per_s", "of_worker"},
    "coldstart": {"import_ms", "first_outcome_s"},
    "recovery": {"after_kill_s", "hand_over_s"},
}


@pytest.mark.parametrize("name", NAMES)
def test_every_workload_keeps_the_interface(name: str) -> None:
    found = load(name)
    assert isinstance(found, Workload)
    assert found.name == name
    assert found.what
    assert found.how.endswith(".")
    assert importlib.import_module(f"bench.workloads.{name}").__doc__


def test_every_file_is_named_and_every_name_is_a_file() -> None:
    assert {found.name for found in pkgutil.iter_modules(bench.workloads.__path__)} == set(NAMES)
    with pytest.raises(KeyError):
        load("run2")


async def tiny(name: str) -> None:
    """A real run, as short as it gets."""
    figures = await load(name).run(Setup(seconds=0.05))
    assert {figure.name for figure in figures} >= EXPECTED.get(name, {"runs_per_s"})
    assert len({(figure.name, str(figure.at)) for figure in figures}) == len(figures)
    for figure in figures:
        assert figure.unit
        assert figure.better in (MORE, LESS, NONE)
        assert figure.value > 0 or figure.better != MORE


@pytest.mark.parametrize("name", CHEAP)
async def test_a_cheap_workload_measures_something_on_the_embedded_log(name: str) -> None:
    await tiny(name)


@pytest.mark.skipif(os.environ.get("MESH_BENCH_TESTS") != "all", reason="only with MESH_BENCH_TESTS=all")
@pytest.mark.parametrize("name", EXPENSIVE)
async def test_an_expensive_workload_measures_something_on_the_embedded_log(name: str) -> None:
    await tiny(name)


async def test_a_slow_answer_does_not_slow_the_asking_down() -> None:
    text = written({"wait": "on: bench.wait, emits: bench.answer, lanes: 1"}, partitions=1)
    setup = Setup()
    async with setup.field(text) as field, field.up(["orchestrator", "worker"]), watching(field) as outcomes:
        took = await open_loop(
            *(field.mesh, outcomes),
            rate=100,
            seconds=0.3,
            type="bench.wait",
            payload=lambda n: io.request(30, n),
        )
    # One lane needs 900 ms for what is due within 300: whoever waited for answers before asking would measure 30 each.
    assert len(took) == 30
    assert max(took) > 500


async def test_runs_that_fail_are_no_throughput() -> None:
    text = written({"echo": "on: bench.ask, emits: bench.answer, timeout: 5s, retry: {attempts: 1}"}, partitions=1)
    setup = Setup()
    async with setup.field(text) as field, field.up(["orchestrator", "worker"]), watching(field) as outcomes:
        with pytest.raises(RuntimeError, match="otherwise than completed"):
            await burst(field.mesh, outcomes, 2, payload=lambda n: {"id": f"bad-{n}", "text": "no numbers"})


def test_requests_of_a_size_have_that_size() -> None:
    for size in payload.SIZES:
        assert len(orjson.dumps(payload.sized(size, 4_711))) == size


def test_keys_are_as_many_as_requested() -> None:
    assert len({str(hotkey.keyed(7, n)["text"]) for n in range(100)}) == 7
    assert len({str(hotkey.keyed(1, n)["id"]) for n in range(100)}) == 100


def test_latencies_become_percentiles_and_keep_their_samples() -> None:
    found = {figure.name: figure for figure in latency.figures(Histogram(float(n) for n in range(1, 1_001)), 50)}
    assert [found[name].value for name in ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")] == [
        *(500, 900, 990, 999, 1_000)
    ]
    assert sum(times for _, times in found["p50_ms"].samples) == 1_000
    assert all(figure.at == {"rate_per_s": 50} for figure in found.values())


def test_many_waits_are_measured_against_one() -> None:
    took, memory, tasks = io.at_once(io.AT_ONCE_LONG, 12.5, 60.0)
    assert (took.value, memory.value, tasks.value) == (1.25, 60.0, 10_000)
    assert all(figure.at == {"tasks": 10_000, "wait_ms": 10_000} for figure in (took, memory, tasks))


def test_the_cost_of_an_event_is_measured_beside_open_runs() -> None:
    samples = state.cost(20)
    assert len(samples) == state.ROUNDS
    assert all(sample > 0 for sample in samples)
