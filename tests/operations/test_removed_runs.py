"""Runs that are older than the records of the inbox: listed, found and told from checkpoints."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh import Mesh, Payload
from mesh.adapters.ports import Log
from mesh.app.process import Process, running
from mesh.app.wiring import open_board, open_log
from mesh.core.errors import NotFound
from mesh.core.protocol.record import TopicPartition
from mesh.core.task.agent import agent_of
from mesh.core.topology.loader import load
from mesh.operations.runs import Runs
from mesh.settings import Settings

MESH = load("""
mesh: {name: t, inbox: {partitions: 2}, limits: {deadline: 1h}}
topics:
  asks: {ingress: ask, id: id}
  answers: {egress: answer}
agents:
  first: {run: "t:first", on: ask, emits: answer, timeout: 1h}
""")
DEADLINE_S = 20.0


class Ask(Payload, type="ask"):
    id: str
    wait: bool = False


class Answer(Payload, type="answer"):
    id: str


allowed = asyncio.Event()


async def first(ask: Ask) -> Answer:
    if ask.wait:
        await allowed.wait()
    return Answer(id=ask.id)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    global allowed
    allowed = asyncio.Event()
    log = open_log(Settings(log=f"sqlite:{tmp_path / 'mesh.db'}"))
    await log.start()
    yield log
    await log.close()


@asynccontextmanager
async def up(log: Log) -> AsyncIterator[Mesh]:
    """All services; at the end the orchestrator writes its checkpoints."""
    settings = Settings(log=log.url, drain_timeout_ms=100)
    board = open_board(settings, MESH.prefix, beside=log)
    await board.start()
    client = Mesh(log, MESH)
    async with running(Process(log, MESH, settings, agents={"first": agent_of(first)}, board=board)):
        yield client
    await client.close()
    await board.close()


async def remove_all(log: Log) -> None:
    """Remove every record of the inbox and of the outcomes, as retention does."""
    for topic in (MESH.inbox, MESH.outcomes):
        for number, bounds in (await log.bounds(topic)).items():
            await log.trim(TopicPartition(topic, number), bounds.end)


async def until_shown(log: Log, run_id: str, kind: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while kind not in [m.kind for m in (await Runs(log, MESH).find(run_id)).moments]:  # noqa: ASYNC110  # polls the log
            await asyncio.sleep(0.005)


async def paused_run(log: Log) -> str:
    """A run that is paused while its task is at work, and of which no record is left."""
    async with up(log) as client:
        run = await client.publish("ask", {"id": "old", "wait": True}, subject="case 7")
        await until_shown(log, run.id, "dispatched")
        await client.pause(run.id, by="ann", why="the supplier is down")
        await until_shown(log, run.id, "paused")
    await remove_all(log)
    return run.id


async def test_a_paused_run_that_is_older_than_the_log_is_listed_and_found(log: Log) -> None:
    run_id, runs = await paused_run(log), Runs(log, MESH)
    (row,) = await runs.latest(limit=20)
    assert (row.run_id, row.type, row.subject, row.state, row.paused) == (run_id, "ask", "case 7", "open", True)
    assert row.opened_ms > 0
    assert [row.run_id for row in await runs.latest(limit=20, since_ms=row.opened_ms)] == [run_id]
    assert await runs.latest(limit=20, since_ms=row.opened_ms + 1) == []
    for name in (run_id, run_id[:9], "old", "case 7"):
        history = await runs.find(name)
        assert (history.run_id, history.state, history.type, history.subject) == (run_id, "open", "ask", "case 7")
        assert [(task.agent, task.state) for task in history.tasks.values()] == [("first", "working")]
        assert [moment.kind for moment in history.moments] == ["paused"]
        assert "the supplier is down" in history.moments[0].text
    with pytest.raises(NotFound):
        await runs.find("unknown")


async def test_events_behind_the_checkpoint_are_reported_too(log: Log) -> None:
    run_id, runs = await paused_run(log), Runs(log, MESH)
    async with up(log) as client:
        await client.resume(run_id)
        await until_shown(log, run_id, "resumed")
        (row,) = await runs.latest(limit=20)
        assert (row.run_id, row.state, row.paused) == (run_id, "open", False)
        allowed.set()
        assert (await client.outcome(run_id, timeout_s=DEADLINE_S)).ending == "completed"
    assert [(row.run_id, row.state) for row in await runs.latest(limit=20)] == [(run_id, "completed")]
    assert (await runs.find(run_id)).ending == "completed"


async def test_a_request_that_comes_again_does_not_make_an_old_run_look_new(log: Log) -> None:
    run_id, runs = await paused_run(log), Runs(log, MESH)
    (before,) = await runs.latest(limit=20)
    client = Mesh(log, MESH)
    assert (await client.publish("ask", {"id": "old", "wait": True}, subject="case 7")).id == run_id
    await client.close()
    assert await runs.latest(limit=20) == [before]
    history = await runs.find("old")
    assert (history.run_id, history.opened_ms) == (run_id, before.opened_ms)
    assert [moment.kind for moment in history.moments] == ["paused", "noted"]


async def test_a_request_for_a_removed_run_is_no_open_run_though_nothing_answered_it_yet(log: Log) -> None:
    async with up(log) as client:
        run = await client.publish("ask", {"id": "done"})
        assert await run.outcome(timeout_s=DEADLINE_S)
    await remove_all(log)
    runs, client = Runs(log, MESH), Mesh(log, MESH)
    await client.publish("ask", {"id": "done"})
    fresh = await client.publish("ask", {"id": "fresh"})
    await client.close()
    assert [(row.run_id, row.state) for row in await runs.latest(limit=20)] == [(fresh.id, "open")]
    history = await runs.find("done")
    assert (history.run_id, history.state, history.type, history.tasks) == (run.id, "completed", "ask", {})
