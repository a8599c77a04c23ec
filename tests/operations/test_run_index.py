"""Runs found through the index: the same as without it; built on after kills, by two at once, behind another log."""

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bench import run_log
from mesh.adapters.ports import ReadLog
from mesh.adapters.sqlite import SqliteLog
from mesh.adapters.sqlite.run_index import MEMORY, RunIndexFile, RunIndexUnusable
from mesh.adapters.sqlite.run_rows import NAMES
from mesh.app.wiring import load_topology
from mesh.cli.views.run_view import history_json
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.history.run_query import RunQuery
from mesh.core.history.run_summary import Summary
from mesh.core.protocol.record import TopicPartition
from mesh.core.selection.where import Where
from mesh.core.topology.model import Topology
from mesh.operations import run_index, run_places
from mesh.operations.run_index import RunIndex, identity_of
from mesh.operations.run_selection import select_runs
from mesh.operations.runs import Runs
from mesh.runtime.log_reader import read_records

RUNS = 1_200
ROOT = Path(__file__).parents[2]
DEADLINE_S = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of ended, failed and open runs."""
    folder = tmp_path_factory.mktemp("found")
    (folder / "topics.yaml").write_text(run_log.TEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_log, "STEP", 400)
        patch.setattr(run_log, "OPEN", 300)
        asyncio.run(run_log.write(folder, RUNS))
    return folder


@pytest.fixture(scope="module")
def mesh(folder: Path) -> Topology:
    return load_topology(str(folder / "topics.yaml"))


@pytest.fixture
async def log(folder: Path, tmp_path: Path) -> AsyncIterator[SqliteLog]:
    """A copy of the log."""
    shutil.copytree(folder / ".mesh", tmp_path / ".mesh", ignore=shutil.ignore_patterns("*.wake"))
    log = SqliteLog(tmp_path / ".mesh" / "mesh.db")
    await log.start()
    yield log
    await log.close()


class Indexed(Runs):
    """Runs with their index."""

    def __init__(self, log: ReadLog, mesh: Topology, index: RunIndex) -> None:
        super().__init__(log, mesh, finder=index)
        self.index = index

    async def select(self, query: RunQuery, *, limit: int, where: Where | None = None) -> list[Summary]:
        return await select_runs(self, self.index, query, limit=limit, where=where)


_opened: list[RunIndexFile] = []
"""Files of the running test, closed after it."""


@pytest.fixture(autouse=True)
def closed_afterwards() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


async def opened(log: ReadLog, mesh: Topology, path: str | Path) -> RunIndexFile:
    """The file of an index."""
    file = RunIndexFile(path)
    _opened.append(file)
    file.open(identity_of(mesh, await log.topics()))
    return file


async def indexed(log: ReadLog, mesh: Topology, path: str | Path = MEMORY) -> Indexed:
    """The index, built to the end."""
    index = RunIndex(log, mesh, await opened(log, mesh, path))
    assert await index.catch_up()
    return Indexed(log, mesh, index)


def contents(path: Path) -> list[Any]:
    """All rows of an index, with the texts that their numbers stand for."""
    with closing(sqlite3.connect(path)) as connection:
        texts = {0: "", **dict(connection.execute("SELECT number, text FROM words").fetchall())}
        numbered = [NAMES.index(name) + 1 for name in ("type", "ending", "agents", "codes")]
        rows = [
            [texts[value] if place in numbered else value for place, value in enumerate(row)]
            for row in connection.execute("SELECT * FROM runs ORDER BY run").fetchall()
        ]
        places = connection.execute("SELECT * FROM places ORDER BY 1, 2").fetchall()
        requests = connection.execute("SELECT * FROM requests ORDER BY 1, 2").fetchall()
    connection.close()
    return [[row[1:] for row in rows], places, requests]


async def test_a_run_is_found_as_without_an_index(log: SqliteLog, mesh: Topology) -> None:
    plain, runs = Runs(log, mesh), await indexed(log, mesh)
    for name in ("order-00000000", "order-00000777", "open-00000299", "order-00001198"):
        expected = history_json(await plain.find(name))
        assert history_json(await runs.find(name)) == expected
        assert history_json(await runs.find(str(expected["run"]))) == expected
        assert history_json(await runs.find(str(expected["run"])[:9])) == expected
    with pytest.raises(NotFound):
        await runs.find("order-9")
    with pytest.raises(NotFound):
        await runs.find("f" * 24)
    with pytest.raises(InvalidInput, match="runs go by that name"):
        await runs.find("a")


async def test_only_the_records_of_a_run_and_of_few_others_are_read(
    log: SqliteLog, mesh: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, read = await indexed(log, mesh), 0
    stored = read_records

    async def counted(log: ReadLog, topic: str, places: Any) -> Any:
        nonlocal read
        read += sum(each.end - each.start for each in places.values())
        async for record in stored(log, topic, places):
            yield record

    monkeypatch.setattr(run_places, "read_records", counted)
    await runs.find("order-00000777")
    assert 4 <= read <= 400


@pytest.mark.parametrize("state", ["", "failed", "open", "completed", "ended"])
async def test_the_latest_runs_are_those_without_an_index(log: SqliteLog, mesh: Topology, state: str) -> None:
    plain, runs = Runs(log, mesh), await indexed(log, mesh)
    query = RunQuery(state=state)
    expected = await plain.latest(limit=2_000, where=query.test(log.now_ms()))
    found = await runs.select(query, limit=2_000)
    assert len(found) == len(expected) > 0
    assert {run._replace(agents=()) for run in found} == {run._replace(agents=()) for run in expected}
    first = await runs.select(query, limit=7)
    assert [run.opened_ms for run in first] == [run.opened_ms for run in found[:7]]


async def test_runs_are_selected_by_what_they_did(log: SqliteLog, mesh: Topology) -> None:
    runs = await indexed(log, mesh)
    every = await runs.select(RunQuery(), limit=2_000)
    for query in (
        RunQuery(agent="ship"),
        RunQuery(code="exception"),
        RunQuery(subject="*77"),
        RunQuery(tasks_min=3, sort="spent"),
        RunQuery(usd_micros_min=1, sort="took"),
        RunQuery(tasks_min=1, state="open", sort="tasks"),
        RunQuery(since_ms=every[500].opened_ms, until_ms=every[100].opened_ms),
    ):
        fits, order = query.test(log.now_ms()), query.order(log.now_ms())
        found = await runs.select(query, limit=2_000)
        assert sorted(run.run_id for run in found) == sorted(run.run_id for run in every if fits(run)), query
        assert found, query
        assert [order(run)[0] for run in found] == sorted(order(run)[0] for run in found)


@pytest.mark.parametrize(
    ("text", "subjects"),
    [
        ("lines[0].qty == 7 and tasks == 3", {f"order-{n:08d}" for n in range(7, RUNS, 100)}),
        ('state == "open"', {f"open-{n:08d}" for n in range(299, RUNS, 300)}),
        ('"exception" in codes and order.placed.order_id == subject', None),
    ],
)
async def test_a_condition_reads_the_request_and_what_is_listed(
    log: SqliteLog, mesh: Topology, text: str, subjects: set[str] | None
) -> None:
    runs = await indexed(log, mesh)
    found = await runs.select(RunQuery(), limit=2_000, where=Where(text, mesh.ingress))
    failed = {run.subject for run in await runs.select(RunQuery(state="failed"), limit=2_000)}
    wanted = failed if subjects is None else subjects
    assert {run.subject for run in found} >= wanted - failed
    assert {run.subject for run in found} <= wanted


def start_builder(folder: Path, path: Path, step_records: int = 400) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.operations.index_builder", str(folder), str(path), str(step_records)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def test_a_killed_builder_is_continued(folder: Path, mesh: Topology, log: SqliteLog, tmp_path: Path) -> None:
    killed, whole = tmp_path / "killed.db", tmp_path / "whole.db"
    for _ in range(2):
        with start_builder(folder, killed) as builder:
            assert builder.stdout is not None
            assert builder.stdout.readline()  # a step is done, the next one is under way
            builder.send_signal(signal.SIGKILL)
    part = contents(killed)
    assert part[1]
    await indexed(log, mesh, whole)
    assert part != contents(whole)
    await indexed(log, mesh, killed)
    assert contents(killed) == contents(whole)


async def test_two_builders_at_once_make_one_index(
    folder: Path, mesh: Topology, log: SqliteLog, tmp_path: Path
) -> None:
    together, whole = tmp_path / "together.db", tmp_path / "whole.db"
    with start_builder(folder, together) as one, start_builder(folder, together) as other:
        assert (one.wait(DEADLINE_S), other.wait(DEADLINE_S)) == (0, 0)
    await indexed(log, mesh, whole)
    await indexed(log, mesh, together)
    assert contents(together) == contents(whole)


async def test_while_another_process_builds_the_rest_is_read_from_the_log(
    mesh: Topology, log: SqliteLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_index, "WAIT_S", 0.05)
    monkeypatch.setattr(run_index, "STEP_RECORDS", 500)
    other = await opened(log, mesh, tmp_path / "runs.db")
    expected = await (await indexed(log, mesh)).select(RunQuery(), limit=2_000)
    with other.building() as mine:
        assert mine
        runs = await indexed(log, mesh, tmp_path / "runs.db")
        assert await runs.select(RunQuery(), limit=2_000) == expected
        assert (await runs.find("order-00000777")).state == "completed"
        assert other.count() == 0
        monkeypatch.setattr(run_index, "TAIL_MAX", 100)
        file = await opened(log, mesh, tmp_path / "runs.db")
        assert not await RunIndex(log, mesh, file).catch_up()


async def test_an_index_of_another_log_is_dropped(
    mesh: Topology, log: SqliteLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.db"
    (await indexed(log, mesh, path)).index.file.close()
    (tmp_path / "topics.yaml").write_text(run_log.TEXT)
    monkeypatch.setattr(run_log, "STEP", 100)
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "topics.yaml").write_text(run_log.TEXT)
    await run_log.write(tmp_path / "young", 300)  # shorter: the index is ahead of it
    young = SqliteLog(tmp_path / "young" / ".mesh" / "mesh.db")
    await young.start()
    runs = await indexed(young, mesh, path)
    assert "restored" in runs.index.file.dropped
    assert runs.index.file.count() == 300
    assert (await runs.find("order-00000007")).state in ("completed", "failed")
    runs.index.file.close()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "topics.yaml").write_text(run_log.TEXT)
    await run_log.write(tmp_path / "other", 600)  # longer: other records lie at the same places
    other = SqliteLog(tmp_path / "other" / ".mesh" / "mesh.db")
    await other.start()
    runs = await indexed(other, mesh, path)
    assert runs.index.file.dropped
    assert runs.index.file.count() == 600
    runs.index.file.close()
    await young.close()
    await other.close()


async def test_trimmed_heads_are_followed(mesh: Topology, log: SqliteLog, tmp_path: Path) -> None:
    runs = await indexed(log, mesh, tmp_path / "runs.db")
    before = await runs.select(RunQuery(), limit=2_000)
    for topic in (mesh.inbox, mesh.outcomes):
        for number, each in (await log.bounds(topic)).items():
            await log.trim(TopicPartition(topic, number), (each.start + each.end) // 2)
    assert await runs.index.catch_up()
    found = await runs.select(RunQuery(), limit=2_000)
    assert 0 < len(found) < len(before)
    oldest = min(before, key=lambda run: (run.opened_ms, run.run_id))
    gone = {run.run_id for run in before} - {run.run_id for run in found}
    assert oldest.run_id in gone
    assert runs.index.file.count() < len(before)
    with pytest.raises(NotFound):
        await runs.find(oldest.run_id)


async def test_an_index_that_names_wrong_places_is_damaged(mesh: Topology, log: SqliteLog, tmp_path: Path) -> None:
    runs = await indexed(log, mesh, tmp_path / "runs.db")
    with sqlite3.connect(tmp_path / "runs.db") as connection:
        connection.execute("UPDATE runs SET places = '[[[0,0]],[]]' WHERE subject = 'order-00000777'")
    connection.close()
    with pytest.raises(RunIndexUnusable) as refused:
        await runs.find("order-00000777")
    assert refused.value.damaged


async def test_a_long_build_that_is_not_wanted_is_not_begun(mesh: Topology, log: SqliteLog, tmp_path: Path) -> None:
    file = await opened(log, mesh, tmp_path / "runs.db")
    index = RunIndex(log, mesh, file)
    assert not await index.catch_up(records_max=100)
    assert file.count() == 0
    reported: list[tuple[int, int, int]] = []
    assert await index.catch_up(lambda *step: reported.append(step))
    assert sum(step for step, _, _ in reported) == reported[-1][1] == reported[-1][2]
    assert await index.catch_up(records_max=0)
