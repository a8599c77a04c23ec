"""Ceilings beside the mesh, and what a run leaves on the log."""

from bench.ceilings import log_alone, python_alone, steady
from bench.field import Setup
from bench.load import burst, watching
from bench.logged import broker_cpu_s, logged, record_bytes, tally
from bench.workloads.run1 import TEXT
from mesh.core.protocol.record import NewRecord

SAID = """\
148120 records sent, 29618.1 records/sec (14.12 MB/sec), 512.0 ms avg latency, 811.0 ms max latency.
400000 records sent, 98039.215686 records/sec (46.75 MB/sec), 380.52 ms avg latency, 811.00 ms max latency, 401 ms 50th
200000 steady state records sent, 110375.275938 records/sec (60.00 MB/sec), 301.10 ms avg latency, 500.00 ms max latency
"""


def test_what_kafkas_tool_says_of_its_steady_state_is_read() -> None:
    assert steady(SAID) == 110375.275938
    assert steady("org.apache.kafka.common.KafkaException: no") is None


async def test_the_embedded_log_alone_takes_records_of_a_size() -> None:
    async with Setup().field(TEXT) as field:
        found = await log_alone(field, 500)
        bounds = await field.log.bounds(f"{field.topology.prefix}.ceiling")
    assert found.records_per_s > 1_000
    assert found.by == "appends of 500"
    assert sum(b.end for b in bounds.values()) >= found.records_per_s * 0.5


def test_python_alone_does_runs_of_three_steps_more_slowly_than_of_one() -> None:
    # The best of some, taken in turns: a machine that is slow for a moment must not decide.
    asked = [[python_alone(mesh, runs=200) for mesh in ("one step", "three steps")] for _ in range(4)]
    one, three = map(max, zip(*asked, strict=True))
    assert one > three > 100


def test_the_size_of_a_record_is_all_that_was_given() -> None:
    assert record_bytes(NewRecord("t", b"key", b"value", [("a", b"bc"), ("d", b"")])) == 3 + 5 + 3 + 1
    assert record_bytes(NewRecord("t", None, None, [])) == 0


async def test_what_runs_left_on_the_log_is_counted() -> None:
    async with Setup().field(TEXT) as field, field.up(["orchestrator", "worker"]), watching(field) as outcomes:
        await burst(field.mesh, outcomes, 20)
        before = await tally(field)
        await burst(field.mesh, outcomes, 40)
        found = await logged(field, before, await tally(field), 40)
    # The request, the task, its answer, what leaves the mesh, the outcome.
    assert found.records_per_run == 5
    assert 1_000 < found.bytes_per_run < 10_000
    assert found.broker_us_per_run is None


def test_a_broker_that_is_not_here_has_no_cpu_time() -> None:
    for url in ("sqlite:mesh.db", "kafka://127.0.0.1:1", "kafka://one:9092,two:9092", "kafka://broker.example"):
        assert broker_cpu_s(url) is None
