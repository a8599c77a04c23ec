"""Runs exported from an embedded log: every reader finds in the file what it finds in the log."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import ReadLog
from mesh.adapters.recording import RecordingLog
from mesh.app.embedded_board import embedded_changes
from mesh.core.board.changelog import BoardChange, change_record, read_board_record
from mesh.core.errors import NotFound
from mesh.core.expression.field_path import parse_path
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.replay.recording_format import Masking
from mesh.core.topology.loader import load
from mesh.operations.replay.recording_export import ChosenRuns, RunMarks, export, runs_where
from mesh.operations.replay.run_replay import replay_run
from mesh.operations.runs import Runs
from mesh.operations.verification import verify
from mesh.runtime.log_reader import read_records
from mesh.settings import Settings
from mesh.testing import MeshTest
from tests.operations.test_runs import TOPOLOGY, ended, first, second
from tests.services.conftest import read_until


@pytest.fixture
async def mesh() -> AsyncIterator[MeshTest]:
    async with MeshTest(TOPOLOGY, agents={"first": first, "second": second}) as mesh:
        yield mesh


def one(run_id: str) -> ChosenRuns:
    return ChosenRuns(RunMarks([run_id]), run_id, {"run": run_id})


async def exported(
    log: ReadLog, mesh: MeshTest, path: Path, chosen: ChosenRuns, redact: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Write a recording; return its lines."""
    masking = Masking([parse_path(text) for text in redact])
    async with aclosing(export(log, mesh.topology, chosen, masking=masking, redacted=redact, version="1")) as lines:
        return write(path, [line async for line in lines])


def write(path: Path, lines: Sequence[bytes]) -> list[dict[str, Any]]:
    path.write_bytes(b"".join(lines))
    return [orjson.loads(line) for line in lines]


async def opened(path: Path) -> RecordingLog:
    log = RecordingLog(path)
    await log.start()
    return log


async def all_of(log: ReadLog, topic: str) -> list[Record]:
    async with aclosing(read_records(log, topic, await log.bounds(topic))) as records:
        return [record async for record in records]


def keys(records: Sequence[Record], run_id: str) -> list[tuple[int, int, bytes | None, bytes | None]]:
    return [(r.partition, r.offset, r.key, r.value) for r in records if r.key == run_id.encode()]


async def test_every_reader_finds_the_run_in_the_file(mesh: MeshTest, tmp_path: Path) -> None:
    run_id = await ended(mesh, "a")
    await ended(mesh, "b")
    lines = await exported(mesh.log, mesh, tmp_path / "run.jsonl", one(run_id))
    assert (lines[0]["recording"], lines[0]["mesh_version"], lines[0]["chosen"]) == (1, "1", {"run": run_id})
    assert lines[-1]["end"] == {"records": len(lines) - 2, "masked": {}, "gaps": []}
    topics = [line["topic"] for line in lines[1:-1]]
    assert topics == [
        *("mesh.topologies", *["mesh.inbox"] * 3, "mesh.tasks.first", "mesh.tasks.second"),
        *("mesh.outcomes", "answers"),
    ]
    assert all(line["correlationid"] == run_id for line in lines[2:-1])
    file = await opened(tmp_path / "run.jsonl")
    recorded, replayed = [await replay_run(log, mesh.topology, "a") for log in (mesh.log, file)]
    assert replayed.steps == recorded.steps
    assert replayed.history.ending == "completed"
    for topic in (mesh.topology.inbox, mesh.topology.outcomes):
        assert keys(await all_of(file, topic), run_id) == keys(await all_of(mesh.log, topic), run_id)
    rows = await Runs(file, mesh.topology).latest(limit=10)
    assert [row.run_id for row in rows] == [run_id]
    checked = await verify(file, file.head.topology, SystemClock())
    assert (checked.report.good, checked.report.runs) == (True, 1), checked.first
    await file.close()


async def test_the_runs_of_a_condition_and_a_time_span_are_exported(mesh: MeshTest, tmp_path: Path) -> None:
    before = await ended(mesh, "a")
    wanted = [await ended(mesh, id, fail=id == "c") for id in ("b", "c")]
    opened_ms = (await replay_run(mesh.log, mesh.topology, "b")).history.opened_ms
    marks = await runs_where(mesh.log, mesh.topology, lambda _, event: event.id != "a", since_ms=None, until_ms=None)
    assert [run_id in marks for run_id in (before, *wanted)] == [False, True, True]
    timed = await runs_where(mesh.log, mesh.topology, lambda *_: True, since_ms=opened_ms, until_ms=None)
    assert all(run_id in timed for run_id in wanted)
    early = await runs_where(mesh.log, mesh.topology, lambda *_: True, since_ms=None, until_ms=opened_ms)
    assert not any(run_id in early for run_id in wanted)
    lines = await exported(mesh.log, mesh, tmp_path / "runs.jsonl", ChosenRuns(marks))
    assert {line["topic"] for line in lines[1:-1]} >= {"mesh.dead", "mesh.outcomes", "mesh.tasks.first", "answers"}
    file = await opened(tmp_path / "runs.jsonl")
    rows = await Runs(file, mesh.topology).latest(limit=10)
    assert {row.run_id: row.state for row in rows} == dict(zip(wanted, ("completed", "failed"), strict=True))
    checked = await verify(file, file.head.topology, SystemClock())
    assert (checked.report.good, checked.report.runs) == (True, 2), checked.first
    await file.close()


async def test_all_runs_are_exported_without_marks(mesh: MeshTest, tmp_path: Path) -> None:
    ids = {await ended(mesh, id) for id in ("a", "b")}
    await exported(mesh.log, mesh, tmp_path / "all.jsonl", ChosenRuns(None))
    file = await opened(tmp_path / "all.jsonl")
    assert {row.run_id for row in await Runs(file, mesh.topology).latest(limit=10)} == ids
    await file.close()


async def test_the_request_on_an_ingress_topic_is_exported_where_it_is_held(mesh: MeshTest, tmp_path: Path) -> None:
    await mesh.log.append([NewRecord("asks", b"k", b'{"id": "x%d"}' % n, [("a", b"b")], 0) for n in range(3)])
    await read_until(mesh.log, mesh.topology.outcomes, 3)
    run_id = (await replay_run(mesh.log, mesh.topology, "x1")).history.run_id
    lines = await exported(mesh.log, mesh, tmp_path / "run.jsonl", one(run_id))
    (request,) = [line for line in lines[1:-1] if line["topic"] == "asks"]
    assert (request["offset"], request["text"], request["headers"]) == (1, '{"id": "x1"}', [["a", "b"]])
    await mesh.log.trim(TopicPartition("asks", 0), 3)
    lines = await exported(mesh.log, mesh, tmp_path / "run.jsonl", one(run_id))
    assert not [line for line in lines[1:-1] if line["topic"] == "asks"]
    assert lines[-1]["end"]["gaps"] == ["1 requests were removed from asks:0"]


async def test_changes_of_the_board_are_exported_for_the_keys_of_the_run(mesh: MeshTest, tmp_path: Path) -> None:
    run_id = await ended(mesh, "a")
    found = await replay_run(mesh.log, mesh.topology, "a")
    task = next(iter(found.history.tasks))
    changes = [
        BoardChange("seen/a", b"1", "i:1", "first/other-task", "", 1),
        BoardChange("seen/b", b"1", "i:2", "first/other-task", "", 1),
        BoardChange("seen/c", b"1", "i:3", "first/other-task", "", 1),
        BoardChange("seen/a", b"2", "i:4", f"first/{task}", f"{task}:1", 1),
        BoardChange("seen/b", b"2", "i:5", f"first/{task}", "", 1),
    ]
    await mesh.log.append([change_record(change, mesh.topology) for change in changes])
    lines = await exported(mesh.log, mesh, tmp_path / "run.jsonl", one(run_id))
    board = [(line["key"], line["data"]) for line in lines[1:-1] if line["topic"] == mesh.topology.board]
    assert board == [("seen/a", 1), ("seen/b", 1), ("seen/a", 2), ("seen/b", 2)]
    lines = await exported(mesh.log, mesh, tmp_path / "all.jsonl", ChosenRuns(None))
    assert len([line for line in lines[1:-1] if line["topic"] == mesh.topology.board]) == 5


async def test_values_of_an_embedded_board_are_exported_as_changes(mesh: MeshTest, tmp_path: Path) -> None:
    run_id = await ended(mesh, "a")
    found = await replay_run(mesh.log, mesh.topology, "a")
    task = next(iter(found.history.tasks))
    await mesh.board.put("seen/a", b"1", by="first/other")
    await mesh.board.put("seen/b", b"1", by="first/other")
    await mesh.board.put("seen/a", b"2", by=f"first/{task}")
    await mesh.board.delete("seen/a")
    embedded = embedded_changes(mesh.log, mesh.topology, Settings(log=mesh.log.url))
    assert embedded is not None
    assert embedded_changes(mesh.log, mesh.topology, Settings(log=mesh.log.url, board="redis://h:1/0")) is None
    masking = Masking()
    async with aclosing(export(mesh.log, mesh.topology, one(run_id), masking=masking, embedded=embedded)) as lines:
        write(tmp_path / "run.jsonl", [line async for line in lines])
    file = await opened(tmp_path / "run.jsonl")
    assert embedded_changes(file, mesh.topology, Settings(log=mesh.log.url)) is None
    changes = [read_board_record(record) for record in await all_of(file, mesh.topology.board)]
    assert [(c.key, c.value, c.by) for c in changes if isinstance(c, BoardChange)] == [
        ("seen/a", b"1", "first/other"),
        ("seen/a", b"2", f"first/{task}"),
        ("seen/a", b"null", ""),
    ]
    assert all(read.timestamp > found.history.opened_ms for read in await all_of(file, mesh.topology.board))
    await file.close()


async def test_masked_values_are_masked_alike_in_all_records_of_the_run(mesh: MeshTest, tmp_path: Path) -> None:
    run_id = await ended(mesh, "a", password="hunter2hunter2")
    lines = await exported(mesh.log, mesh, tmp_path / "run.jsonl", one(run_id), ["wait"])
    assert b"hunter2" not in (tmp_path / "run.jsonl").read_bytes()
    assert lines[0]["redacted"] == ["wait"]
    assert lines[-1]["end"]["masked"]["password"] == 2
    payloads = [line["data"] for line in lines[1:-1] if line.get("type") == "ask"]
    assert payloads[0]["password"] == "***"
    assert payloads[0] == payloads[1], "the request and the task that it caused"
    file = await opened(tmp_path / "run.jsonl")
    assert file.notes == ["2 values in it are masked: password"]
    assert (await replay_run(file, mesh.topology, "a")).history.ending == "completed"
    await file.close()


# ------------------------------------------------------------------------------------------------------------- faults


async def test_a_run_that_lost_its_first_records_says_so(mesh: MeshTest, tmp_path: Path) -> None:
    run_id = await ended(mesh, "a")
    whole = await replay_run(mesh.log, mesh.topology, run_id)
    place = whole.steps[1].where
    partition, offset = TopicPartition(mesh.topology.inbox, whole.history.partition), int(place.rpartition(":")[2])
    await mesh.log.trim(partition, offset)
    lines = await exported(mesh.log, mesh, tmp_path / "run.jsonl", one(run_id))
    assert lines[-1]["end"]["gaps"] == [f"records before {place} were removed from the log"]
    file = await opened(tmp_path / "run.jsonl")
    assert file.notes == lines[-1]["end"]["gaps"]
    assert (await file.bounds(mesh.topology.inbox))[partition.partition].start == offset
    found = await replay_run(file, mesh.topology, run_id)
    assert [gap.kind for gap in found.gaps] == ["trimmed"]
    await file.close()
    await mesh.log.trim(partition, offset + 100)
    lines = await exported(mesh.log, mesh, tmp_path / "run.jsonl", one(run_id))
    assert lines[-1]["end"]["gaps"] == ["no record of the chosen runs is left on the inbox"]
    assert [line["topic"] for line in lines[2:-1]][:1] == ["mesh.tasks.first"]


async def test_a_log_that_is_being_written_gives_a_whole_file(mesh: MeshTest, tmp_path: Path) -> None:
    runs = [await mesh.publish("ask", {"id": f"r{n}"}) for n in range(200)]
    await exported(mesh.log, mesh, tmp_path / "live.jsonl", ChosenRuns(None))
    file = await opened(tmp_path / "live.jsonl")
    checked = await verify(file, file.head.topology, SystemClock())
    assert checked.report.good, checked.first
    await file.close()
    for run in runs:
        await run.outcome(timeout_s=60)
    await exported(mesh.log, mesh, tmp_path / "done.jsonl", ChosenRuns(None))
    file = await opened(tmp_path / "done.jsonl")
    checked = await verify(file, file.head.topology, SystemClock())
    assert (checked.report.good, checked.report.runs) == (True, 200), checked.first
    await file.close()


async def test_a_run_under_an_older_topology_keeps_it(mesh: MeshTest, tmp_path: Path) -> None:
    run_id = await ended(mesh, "a")
    today = load(TOPOLOGY.replace("deadline: 20s", "deadline: 30s"), path="topics.yaml")
    masking = Masking()
    async with aclosing(export(mesh.log, today, one(run_id), masking=masking)) as lines:
        write(tmp_path / "run.jsonl", [line async for line in lines])
    file = await opened(tmp_path / "run.jsonl")
    assert file.head.topology.digest == today.digest
    found = await replay_run(file, file.head.topology, run_id)
    assert mesh.topology.digest in found.kept.topologies
    assert (found.history.ending, found.gaps) == ("completed", [])
    checked = await verify(file, file.head.topology, SystemClock())
    assert (checked.report.good, checked.topologies) == (True, 2), checked.first
    await file.close()


async def test_a_cancelled_run_is_reported_as_on_the_log(mesh: MeshTest, tmp_path: Path) -> None:
    run = await mesh.publish("ask", {"id": "a", "wait": True})
    await read_until(mesh.log, mesh.topology.tasks("first"), 1)
    await mesh.client.cancel(run.id, why="a test")
    await run.outcome(timeout_s=20)
    await exported(mesh.log, mesh, tmp_path / "run.jsonl", one(run.id))
    file = await opened(tmp_path / "run.jsonl")
    found = await replay_run(file, mesh.topology, run.id)
    assert found.history.ending == "cancelled"
    assert [step.kind for step in found.steps][:2] == ["requested", "cancelled"]
    await file.close()


async def test_a_foreign_log_without_the_inbox_is_refused(mesh: MeshTest, tmp_path: Path) -> None:
    other = load(TOPOLOGY.replace("prefix: mesh", "prefix: other"), path="topics.yaml")
    with pytest.raises(NotFound, match=r"no inbox of this mesh"):
        await anext(export(mesh.log, other, ChosenRuns(None), masking=Masking()))


async def test_a_foreign_record_on_a_topic_of_the_mesh_is_kept_as_it_is(mesh: MeshTest, tmp_path: Path) -> None:
    run_id = await ended(mesh, "a")
    await mesh.log.append([NewRecord(mesh.topology.inbox, run_id.encode(), b"\xff\x00", [("x", b"\xfe")])])
    lines = await exported(mesh.log, mesh, tmp_path / "run.jsonl", one(run_id))
    (foreign,) = [line for line in lines[1:-1] if "data_base64" in line and line["topic"] == mesh.topology.inbox]
    assert (foreign["data_base64"], foreign["headers"]) == ("/wA=", [["x", None, "/g=="]])
    file = await opened(tmp_path / "run.jsonl")
    assert keys(await all_of(file, mesh.topology.inbox), run_id)[-1][3] == b"\xff\x00"
    await file.close()


async def test_what_may_be_after_a_cut_is_not_demanded_by_the_check(mesh: MeshTest, tmp_path: Path) -> None:
    run_id = await ended(mesh, "a")
    await read_until(mesh.log, mesh.topology.outcomes, 1)
    path = tmp_path / "run.jsonl"
    await exported(mesh.log, mesh, path, one(run_id))
    lines = path.read_bytes().splitlines(keepends=True)
    for count in range(1, len(lines)):
        path.write_bytes(b"".join(lines[:count]))
        file = await opened(path)
        checked = await verify(file, file.head.topology, SystemClock())
        assert checked.first is None, (count, checked.first)
        await file.close()
    kept = [line for line in lines[:-1] if b'"topic":"mesh.tasks.first"' not in line]
    end = orjson.loads(lines[-1])["end"] | {"records": len(kept) - 1}
    path.write_bytes(b"".join(kept) + orjson.dumps({"end": end}) + b"\n")
    file = await opened(path)
    found = (await verify(file, file.head.topology, SystemClock())).first
    assert found is not None, "a whole file must hold it"
    assert found.violation.invariant == "I7"
    await file.close()
