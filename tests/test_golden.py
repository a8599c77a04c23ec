"""Files of an earlier version load: tests/golden holds what version 0.1.0 wrote. They are never written again."""

from pathlib import Path

import orjson
import pytest

from mesh.adapters.recording import RecordingLog
from mesh.core.board.changelog import BoardChange, read_board_record
from mesh.core.dead_letters.letter import letter_from, letter_json
from mesh.core.errors import Conflict
from mesh.core.protocol.event import KINDS
from mesh.core.replay.recording_format import read_record, record_line
from mesh.core.state.checkpoint import CheckpointLoader
from mesh.core.state.partition_state import Partition
from mesh.core.task.fault_injection import Broken
from mesh.core.task.result import fault_of
from mesh.core.topology.serialization import pinned_topology
from mesh.operations.replay.run_replay import replay_run
from mesh.operations.runs import Runs
from mesh.runtime.log_reader import read_records, record_at

GOLDEN = Path(__file__).parent / "golden"


def test_a_pinned_topology_loads() -> None:
    mesh = pinned_topology((GOLDEN / "topology.json").read_bytes(), "f" * 16)
    assert (mesh.name, mesh.digest, mesh.inbox_partitions) == ("golden", "f" * 16, 3)
    assert (mesh.limits.deadline_ms, mesh.limits.depth_max) == (20_000, 12)
    plan, join = mesh.agents["plan"], mesh.agents["join"]
    assert plan.retry.final == ("schema", "ValueError", "mesh.core.errors.Conflict", "mesh.core.chaos.Broken")
    assert plan.breaker is not None
    assert (plan.breaker.failures_max, plan.fallback) == (3, ("spare",))
    assert join.when is not None
    assert join.when.holds({"part": {"n": 2}, "other": {"name": "a"}})
    assert not join.when.holds({"part": {"n": 2}, "other": {"name": "c"}})


def restored() -> Partition:
    mesh = pinned_topology((GOLDEN / "checkpoint-topology.json").read_bytes(), "0" * 16)
    loading = CheckpointLoader()
    for chunk in orjson.loads((GOLDEN / "checkpoint.json").read_bytes()):
        loading.feed(chunk.encode())
    return loading.partition(mesh)


def test_a_checkpoint_loads() -> None:
    state = restored()
    assert (state.offset, sorted(state.runs), sorted(state.ended)) == (18, ["run-1", "run-2"], ["run-3"])
    waiting = {id: [task.held for task in state.runs[id].open.values() if task.held] for id in state.runs}
    assert [(held.data, held.due_ms) for held in waiting["run-1"]] == [
        (b'{"n":0}', 1_795_176_002_627),
        (b'{"n":0}', 1_795_176_000_101),
    ]
    assert {id: len(held) for id, held in waiting.items()} == {"run-1": 2, "run-2": 2}
    first, second = state.runs["run-1"], state.runs["run-2"]
    assert [(failure.agent, failure.code) for failure in first.failures] == [("a0", "boom")]
    assert [refusal.code for refusal in (*first.refusals, *second.refusals)] == [
        "budget_usd",
        "fanout",
        "undeclared_type",
    ]


@pytest.mark.parametrize("line", (GOLDEN / "dead-letters.jsonl").read_bytes().splitlines())
def test_an_exported_dead_letter_loads_and_is_exported_the_same(line: bytes) -> None:
    letter, changed = letter_from(orjson.loads(line))
    assert not changed
    assert orjson.dumps(letter_json(letter)) == line


def test_classes_of_errors_have_the_names_that_letters_and_topologies_of_earlier_versions_tell() -> None:
    lines = (GOLDEN / "dead-letters.jsonl").read_bytes().splitlines()
    told = {letter_from(orjson.loads(line))[0].cls for line in lines}
    assert {fault_of(error).cls for error in (Broken("x"), Conflict("x", expected="1", current="2"))} <= told


async def test_a_recording_loads_and_is_replayed() -> None:
    log = RecordingLog(GOLDEN / "recording.jsonl")
    await log.start()
    mesh = log.head.topology
    assert (mesh.name, log.head.mesh_version, log.head.redacted) == ("golden", "0.1.0", ["card"])
    assert log.notes == ["7 values in it are masked: card, header Authorization, password"]
    rows = await Runs(log, mesh).latest(limit=10)
    assert [(row.subject, row.state, row.tasks) for row in rows] == [
        ("c", "completed", 2),
        ("b", "failed", 1),
        ("a", "completed", 2),
    ]
    for row in rows:
        found = await replay_run(log, mesh, row.run_id)
        steps = [(step.kind, step.agent) for step in found.steps if step.kind in KINDS]
        failed = row.state == "failed"
        answers = [("failed", "first")] if failed else [("succeeded", "first"), ("succeeded", "second")]
        assert steps == [("requested", ""), *answers]
        assert found.history.ending == row.state
        assert [gap.kind for gap in found.gaps] == {"a": ["unreadable"], "b": ["dead letter"], "c": []}[row.subject]
    bounds = await log.bounds("asks")
    (request,) = [record async for record in read_records(log, "asks", bounds)]
    assert (request.value, list(request.headers)) == (b'{ "id": "c" }', [("Authorization", b"***")])
    unreadable = await record_at(log, mesh.inbox, 0, 3)
    assert unreadable is not None
    assert (unreadable.value, list(unreadable.headers)) == (b"\xff\x00", [("x", b"\xfe")])
    switch = await record_at(log, mesh.control, 0, 0)
    assert switch is not None
    assert switch.value is None
    (change,) = [record async for record in read_records(log, mesh.board, await log.bounds(mesh.board))]
    assert read_board_record(change) == BoardChange("seen/a", b"2", "i:4", "first/t", "t:1", 1)
    await log.close()


def test_a_line_of_a_recording_is_written_the_same() -> None:
    lines = (GOLDEN / "recording.jsonl").read_bytes().splitlines(keepends=True)
    for number, line in enumerate(lines[1:-1], start=2):
        assert orjson.loads(record_line(read_record(line, "recording.jsonl", number))) == orjson.loads(line)
