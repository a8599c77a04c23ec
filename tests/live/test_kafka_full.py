"""A worker on real Kafka: full for longer than a client may go without a poll, or with a cancelled run."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh import Emit
from mesh.adapters.kafka import KafkaLog
from mesh.adapters.kafka.member import HEARTBEAT_MS, KafkaMember
from mesh.adapters.sqlite import SqliteBoard
from mesh.app.process import Process, running
from mesh.client import Mesh
from mesh.core.protocol.event import CANCELLED
from mesh.core.run.control import command_record
from mesh.core.task.agent import describe
from mesh.core.topology.loader import load
from mesh.services.worker import AgentConsumer
from mesh.settings import Settings
from tests.adapters.log_kit import until

pytestmark = pytest.mark.live
FIVE_MINUTES_S = 300.0


class Desk:
    """A mesh with one agent that waits for a gate."""

    def __init__(self, log: KafkaLog, folder: Path) -> None:
        self.log, self.board = log, SqliteBoard(folder / "board.db")
        self.topology = load(f"""
mesh: {{name: full, prefix: f{secrets.token_hex(6)}, inbox: {{partitions: 2}}}}
topics: {{asks: {{ingress: ask, partitions: 1}}, answers: {{egress: answer, partitions: 1}}}}
agents: {{slow: {{run: "x:y", on: ask, emits: answer, lanes: 1, timeout: 60s, retry: {{attempts: 1}}}}}}
""")
        self.begun: list[int] = []
        self.cancelled_s = 0.0
        self.gate = asyncio.Event()
        self.mesh = Mesh(log, self.topology)
        self.consumer: AgentConsumer

    async def slow(self, ask: dict[str, Any]) -> Emit:
        self.begun.append(ask["n"])
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled_s = time.monotonic()
            raise
        return Emit("answer", ask)


@pytest.fixture
async def desk(kafka_log: KafkaLog, tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(kafka_log, tmp_path)
    await desk.board.start()

    async def slow(ask: dict[str, Any]) -> Emit:
        return await desk.slow(ask)

    settings = Settings(poll_records_max=1, session_timeout_ms=6_000)
    process = Process(kafka_log, desk.topology, settings, agents={"slow": describe(slow)}, board=desk.board)
    async with running(process, ready_timeout_s=60):
        assert process.worker is not None
        desk.consumer = process.worker.consumers["slow"]
        yield desk
        await desk.mesh.close()
    await desk.board.close()


async def test_a_full_worker_stays_in_its_group_and_no_task_is_begun_twice(desk: Desk) -> None:
    consumer = desk.consumer
    runs = [await desk.mesh.publish("ask", {"n": n}) for n in range(6)]
    await until(lambda: consumer.lanes.queued + consumer.lanes.running >= 2, "more than it takes at once")
    assert consumer.partitions.joined is not None
    member = consumer.partitions.joined.result()
    assert isinstance(member, KafkaMember)
    before = member._assignment
    member._consumer._subscription._last_fetch_ended -= FIVE_MINUTES_S + 1  # as if it was full for so long
    heartbeats = time.monotonic() + 4 * HEARTBEAT_MS / 1000
    await until(lambda: time.monotonic() > heartbeats, "heartbeats")
    assert member._assignment == before
    desk.gate.set()
    outcomes = [await run.outcome(timeout_s=30) for run in runs]
    assert [outcome.ending for outcome in outcomes] == ["completed"] * 6
    assert sorted(desk.begun) == list(range(6))
    assert consumer.counts.deaths == 0


async def test_a_cancelled_run_reaches_its_function_within_a_second(desk: Desk) -> None:
    run = await desk.mesh.publish("ask", {"n": 1})
    await until(lambda: desk.begun == [1], "the function")
    at = {"event_id": "c-1", "at_ms": 0, "by": "test", "why": ""}
    await desk.log.append([command_record(CANCELLED, run.id, desk.topology, **at)])  # type: ignore[arg-type]
    began = time.monotonic()
    await until(lambda: desk.cancelled_s > 0, "the cancellation")
    assert desk.cancelled_s - began < 1
    assert (await run.outcome(timeout_s=10)).ending == "cancelled"
