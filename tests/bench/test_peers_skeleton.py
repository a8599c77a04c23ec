"""The skeleton writes what the mesh writes for a run of one step, and its program says what it needs."""

from datetime import UTC, datetime

import pytest

from bench.field import Field, Setup
from bench.load import ask
from bench.peers.compare import Measured
from bench.peers.latency import OURS, Waits, figures
from bench.peers.results import SKELETON
from bench.peers.skeleton import Moment, Topics, Written, answered, decided, main
from bench.workloads.run1 import TEXT
from mesh.core.protocol.codec import event_headers, plain_record, read_event
from mesh.core.protocol.event import NO_USAGE, Event, Part
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.effects import Note, Schedule
from mesh.core.state.partition_state import Partition
from mesh.core.task.result import success_event

AT = datetime(2026, 12, 1, 12, tzinfo=UTC)
AT_MS = round(AT.timestamp() * 1_000)
ANSWER = b'{"id":"%b","total":5}'


def stored(record: NewRecord | Written, offset: int = 7) -> StoredRecord:
    """The record as a reader gets it."""
    return StoredRecord(record.topic, 0, offset, AT_MS, record.key, record.value, tuple(record.headers))


def of_mesh(field: Field, request: Event) -> list[NewRecord]:
    """The records of the mesh for a run, in plain form: task, answer, and those that follow from the answer."""
    topology = field.topology
    number = partition_of(request.run_id.encode(), topology.inbox_partitions)
    state = Partition(topology, number=number, partitions=topology.inbox_partitions)

    def follow(record: NewRecord, offset: int) -> list[NewRecord]:
        effects = list(state.step(stored(record, offset)._replace(partition=number)))
        return [plain_record(record_of(e, topology)) for e in effects if not isinstance(e, Note | Schedule)]

    asked = NewRecord(topology.inbox, request.run_id.encode(), request.data, event_headers(request))
    (task,) = follow(asked, 0)
    event = read_event(stored(task))
    assert isinstance(event, Event)
    value = ANSWER % request.id.encode()
    event = success_event(event, [Part("bench.answer", value)], NO_USAGE)
    answer = NewRecord(topology.inbox, request.run_id.encode(), event.data, event_headers(event))
    return [task, answer, *follow(answer, 1)]


def of_skeleton(field: Field, request: Event) -> list[Written]:
    """The same of the skeleton."""
    topology, moment = field.topology, Moment.at(AT)
    egress = topology.egress["bench.answer"].name
    topics = Topics(topology.inbox, topology.tasks("echo"), topology.outcomes, egress)
    asked = Written(topology.inbox, request.run_id.encode(), request.data, list(event_headers(request)))
    (task,) = decided(stored(asked), topics, moment)
    (answer,) = answered(stored(task), topics, moment)
    return [task, answer, *decided(stored(answer), topics, moment)]


async def test_the_skeleton_appends_the_records_of_a_run_with_the_same_headers_and_sizes() -> None:
    async with Setup().field(TEXT) as field:
        request = field.mesh.request("bench.ask", ask(0))
        ours, theirs = of_mesh(field, request), of_skeleton(field, request)
    assert len(ours) == len(theirs) == 4
    for mine, other in zip(ours, sorted(theirs, key=lambda r: [o.topic for o in ours].index(r.topic)), strict=True):
        assert mine.topic == other.topic
        assert [name for name, _ in mine.headers] == [name for name, _ in other.headers]
        assert len(mine.key or b"") == len(other.key)
        assert abs(len(mine.value or b"") - len(other.value)) <= 4
        for (name, value), (_, written) in zip(mine.headers, other.headers, strict=True):
            assert abs(len(value or b"") - len(written)) <= 4, name


def test_the_times_of_the_skeleton_are_written_as_the_mesh_writes_them() -> None:
    assert Moment.at(AT) == (b"2026-12-01T12:00:00.000Z", b"2026-12-01T12:10:00.000Z")


def test_the_program_of_the_skeleton_names_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["worker", "--bootstrap", "127.0.0.1:1", "--inbox", "a", "--tasks", "b", "--outcomes", "c"])
    assert "--answers" in capsys.readouterr().err


def test_latencies_stand_beside_those_of_the_skeleton_round_by_round() -> None:
    measured = Measured({OURS: [Waits(6, 30, 400), Waits(9, 40, 500)], SKELETON: [Waits(3, 10, 200)] * 2}, {})
    found = {figure.name: figure for figure in figures(measured, 500)}
    assert found["mesh_p50_times"].samples == [2, 3]
    assert found["mesh_p99_times"].value == 3.5
    assert found["mesh_cpu_times"].value == 2.25
    assert (found["p50_ms"].value, found["mesh_p99_ms"].value) == (3, 35)


def test_percentiles_and_cost_of_an_open_loop() -> None:
    assert Waits.of([float(n) for n in range(1, 101)], 0.02) == Waits(50, 99, 200)
