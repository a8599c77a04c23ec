"""A worker on real Kafka whose lanes are full for longer than a client may go without a poll by default."""

import asyncio
import secrets
import time
from pathlib import Path
from typing import Any

import pytest

from mesh import Emit
from mesh.client import Mesh
from mesh.core.agent import describe
from mesh.core.language import load
from mesh.process import Process, running
from mesh.settings import Settings
from mesh.wire.kafka import KafkaLog
from mesh.wire.kafka.member import HEARTBEAT_MS, KafkaMember
from mesh.wire.sqlite import SqliteBoard
from tests.wire.log_kit import until

pytestmark = pytest.mark.live
FIVE_MINUTES_S = 300.0


async def test_a_full_worker_stays_in_its_group_and_no_task_is_begun_twice(kafka_log: KafkaLog, tmp_path: Path) -> None:
    topology = load(f"""
mesh: {{name: full, prefix: f{secrets.token_hex(6)}, inbox: {{partitions: 2}}}}
topics: {{asks: {{ingress: ask, partitions: 1}}, answers: {{egress: answer, partitions: 1}}}}
agents: {{slow: {{run: "x:y", on: ask, emits: answer, lanes: 1, timeout: 60s, retry: {{attempts: 1}}}}}}
""")
    begun: list[int] = []
    gate = asyncio.Event()

    async def slow(ask: dict[str, Any]) -> Emit:
        begun.append(ask["n"])
        await gate.wait()
        return Emit("answer", ask)

    board = SqliteBoard(tmp_path / "board.db")
    await board.start()
    settings = Settings(poll_records_max=1, session_timeout_ms=6_000)
    process = Process(kafka_log, topology, settings, agents={"slow": describe(slow)}, board=board)
    async with running(process, ready_timeout_s=60):
        assert process.worker is not None
        shift = process.worker.shifts["slow"]
        mesh = Mesh(kafka_log, topology)
        runs = [await mesh.publish("ask", {"n": n}) for n in range(6)]
        await until(lambda: shift.lanes.queued + shift.lanes.running >= 2, "more than it takes at once")
        assert shift._joined is not None
        member = shift._joined.result()
        assert isinstance(member, KafkaMember)
        before = member._tenure
        member._consumer._subscription._last_fetch_ended -= FIVE_MINUTES_S + 1  # as if it was full for so long
        heartbeats = time.monotonic() + 4 * HEARTBEAT_MS / 1000
        await until(lambda: time.monotonic() > heartbeats, "heartbeats")
        assert member._tenure == before
        gate.set()
        outcomes = [await run.outcome(timeout_s=30) for run in runs]
        assert [outcome.ending for outcome in outcomes] == ["completed"] * 6
        assert sorted(begun) == list(range(6))
        assert shift.counts.deaths == 0
        await mesh.close()
    await board.close()
