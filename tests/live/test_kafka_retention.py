"""Retention on real Kafka: what runs and requests are answered with whose records were deleted."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mesh import Mesh, Payload
from mesh.adapters.ports import Log
from mesh.app.process import Process, running
from mesh.app.wiring import open_board
from mesh.core.errors import NotAccepted
from mesh.core.protocol.record import TopicPartition
from mesh.core.task.agent import agent_of
from mesh.core.topology.loader import load
from mesh.core.topology.model import Retention, Topology
from mesh.operations.runs import Runs
from mesh.settings import Settings

pytestmark = pytest.mark.live

TEXT = """
mesh: {name: NAME, inbox: {partitions: 2}, limits: {deadline: 1h}}
topics:
  NAME-asks: {ingress: ask, id: id}
agents:
  first: {run: "t:first", on: ask, timeout: 1h}
"""
DEADLINE_S = 60.0


class Ask(Payload, type="ask"):
    id: str
    wait: bool = False


allowed = asyncio.Event()


async def first(ask: Ask) -> None:
    if ask.wait:
        await allowed.wait()


@asynccontextmanager
async def up(log: Log, topology: Topology, folder: Path) -> AsyncIterator[Mesh]:
    """All services; at the end the orchestrator writes its checkpoints."""
    settings = Settings(log=log.url, board=f"sqlite:{folder / 'board.db'}", drain_timeout_ms=100)
    board = open_board(settings, topology.prefix)
    await board.start()
    client = Mesh(log, topology)
    async with running(Process(log, topology, settings, agents={"first": agent_of(first)}, board=board)):
        yield client
    await client.close()
    await board.close()


async def test_runs_and_requests_whose_records_were_deleted(kafka_log: Log, tmp_path: Path) -> None:
    global allowed
    allowed = asyncio.Event()
    topology = load(TEXT.replace("NAME", f"kept-{time.time_ns() % 10**8}"))
    topology = replace(topology, retention=Retention(outcomes_ms=1))
    runs = Runs(kafka_log, topology)
    async with up(kafka_log, topology, tmp_path) as client:
        assert await (await client.publish("ask", {"id": "done"})).outcome(timeout_s=DEADLINE_S)
        paused = await client.publish("ask", {"id": "old", "wait": True})
        await client.pause(paused.id, why="the supplier is down")
        async with asyncio.timeout(DEADLINE_S):
            while "paused" not in [m.kind for m in (await runs.find(paused.id)).moments]:  # noqa: ASYNC110  # polls the log
                await asyncio.sleep(0.05)
    for topic in (topology.inbox, topology.outcomes):
        for number, bounds in (await kafka_log.bounds(topic)).items():
            await kafka_log.trim(TopicPartition(topic, number), bounds.end)
    async with up(kafka_log, topology, tmp_path) as client:
        again = await client.publish("ask", {"id": "done"})
        with pytest.raises(NotAccepted, match="duplicate_request"):
            await again.outcome(timeout_s=DEADLINE_S)
        (row,) = await runs.latest(limit=20)
        assert (row.run_id, row.state, row.paused) == (paused.id, "open", True)
        assert (await runs.find("done")).ending == "completed"
        await client.resume(paused.id)
        allowed.set()
        assert (await client.outcome(paused.id, timeout_s=DEADLINE_S)).ending == "completed"
        assert [(row.run_id, row.state) for row in await runs.latest(limit=20)] == [(paused.id, "completed")]
