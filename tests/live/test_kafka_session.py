"""The session timeout on Kafka: brokers that refuse it, and listeners that let go slowly."""

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.kafka.member import KafkaMember
from mesh.adapters.ports import Commit, TopicSpec
from mesh.core.errors import ConfigInvalid
from mesh.core.protocol.record import TopicPartition
from tests.adapters.log_kit import PATIENCE_S, Recorder, until
from tests.live.conftest import OpenKafka, StartKafka

pytestmark = pytest.mark.live
MINIMUM_MS = 10_000
TOPOLOGY = """
mesh: {name: sessions, inbox: {partitions: 1}}
topics:
  asks: {ingress: ask, id: id, partitions: 1}
agents:
  hear: {run: "hearing:hear", on: ask}
"""
AGENT = """
from mesh import Payload, agent


class Ask(Payload, type="ask"):
    id: str


@agent
async def hear(ask: Ask) -> None:
    pass
"""


@pytest.fixture(scope="module")
def strict_bootstrap(start_kafka: StartKafka) -> str:
    """A broker that takes no session timeout below 10 s."""
    return start_kafka("--set", f"group.min.session.timeout.ms={MINIMUM_MS}").bootstrap


async def join(log: KafkaLog, session_timeout_ms: int, listener: Recorder | None = None) -> KafkaMember:
    """A member of a group of its own."""
    topic = f"s{secrets.token_hex(6)}"
    await log.create_topics([TopicSpec(topic, 1)])
    return await log.join(f"{topic}.group", [topic], listener or Recorder(), session_timeout_ms=session_timeout_ms)


async def polled(member: KafkaMember) -> None:
    """Polls until it has partitions."""
    async with asyncio.timeout(PATIENCE_S):
        while not member.assignment:
            await member.poll(records_max=1, wait_ms=100)


async def test_set_below_the_brokers_minimum_it_is_refused(open_kafka: OpenKafka, strict_bootstrap: str) -> None:
    member = await join(await open_kafka(strict_bootstrap), 3_000)
    with pytest.raises(ConfigInvalid) as raised:
        await polled(member)
    assert raised.value.code == "config_invalid"
    assert raised.value.got == "3000 ms"
    assert "group.min.session.timeout.ms" in (raised.value.expected or "")
    assert "Set another session_timeout_ms" in (raised.value.remedy or "")
    await member.close()


@pytest.mark.parametrize("service", ["orchestrator", "worker"])
def test_a_service_ends_with_the_named_error(tmp_path: Path, strict_bootstrap: str, service: str) -> None:
    (tmp_path / "topics.yaml").write_text(TOPOLOGY)
    (tmp_path / "hearing.py").write_text(AGENT)
    environ = {"MESH_LOG": f"kafka://{strict_bootstrap}", "MESH_SESSION_TIMEOUT_MS": "3000"}
    environ |= {"MESH_BOARD": f"sqlite:{tmp_path}/board.db", "NO_COLOR": "1"}

    def mesh(*words: str) -> "subprocess.CompletedProcess[str]":
        command: dict[str, Any] = {"cwd": tmp_path, "env": {**os.environ, **environ}, "check": False, "timeout": 60}
        return subprocess.run([sys.executable, "-m", "mesh", *words], capture_output=True, text=True, **command)

    assert mesh("topics", "create").returncode == 0
    done = mesh("up", service)
    assert done.returncode == 2, done.stderr
    assert "the broker refuses the session timeout" in done.stderr
    assert "Set another session_timeout_ms" in done.stderr


async def test_a_listener_may_take_longer_than_its_session(kafka_log: KafkaLog, open_kafka: OpenKafka) -> None:
    topic = f"s{secrets.token_hex(6)}"
    await kafka_log.create_topics([TopicSpec(topic, 1)])
    place = TopicPartition(topic, 0)

    async def slowly(_: Sequence[TopicPartition]) -> None:
        await asyncio.sleep(1.8)
        await member.commit({place: Commit(0, "late")})

    slow, other = Recorder(slowly), Recorder()
    member = await kafka_log.join(f"{topic}.group", [topic], slow, session_timeout_ms=1_200)
    await until(lambda: slow.held, "assignment")
    second = await (await open_kafka(kafka_log._connection.bootstrap)).join(
        f"{topic}.group", [topic], other, session_timeout_ms=1_200
    )
    await until(lambda: len(slow.told) >= 3, "the next generation")
    assert await kafka_log.committed(f"{topic}.group", topic) == {0: Commit(0, "late")}
    slow.revoking = None
    for one in (member, second):
        await one.poll(records_max=1, wait_ms=0)
        await one.close()
