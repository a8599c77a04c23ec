"""The whole mesh on real Kafka and Redis, in processes of their own: kills, foreign clients, the same outcomes."""

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Consumer, Producer

from bench.kills import records_of, trial
from bench.mesh_processes import ROOT, mesh_up, private_topology
from mesh.adapters.ports import Log
from mesh.app.wiring import load_topology, open_log, topic_specs
from mesh.client import Mesh
from mesh.core.topology.model import Topology
from mesh.settings import Settings
from mesh.testing import MeshTest

pytestmark = pytest.mark.live

WEBHOOKS = ROOT.parent / "shared" / "data" / "github-webhooks.jsonl"


class LiveMesh:
    """A mesh with topics of its own on the shared broker."""

    def __init__(self, log: Log, topology: Topology, mark: str) -> None:
        self.log, self.topology, self.client = log, topology, Mesh(log, topology)
        self.placed, self.decided = f"orders.placed{mark}", f"orders.decided{mark}"


@pytest.fixture
async def mesh(kafka_bootstrap: str, redis_url: str, tmp_path: Path) -> AsyncIterator[LiveMesh]:
    mark = f"-{time.time_ns() % 10**8}"
    path = private_topology(ROOT / "topics.yaml", tmp_path, mark)
    topology = load_topology(str(path))
    log_url = f"kafka://{kafka_bootstrap}"
    log = open_log(Settings(log=log_url, topology=str(path)), client="test")
    await log.start()
    await log.create_topics(topic_specs(topology))
    services = [["intake", "orchestrator"], ["worker"]]
    async with mesh_up(services, log=log_url, board=redis_url, topology=str(path)):
        live = LiveMesh(log, topology, mark)
        yield live
        await live.client.close()
    await log.close()


async def outcomes_of(mesh: LiveMesh, count: int) -> list[dict[str, Any]]:
    """Bodies of the outcomes, once there are `count` runs."""
    async with asyncio.timeout(60):
        while True:
            records = await records_of(mesh.log, mesh.topology.outcomes)
            if len({r.key for r in records}) >= count:
                return [orjson.loads(r.value or b"") for r in records]
            await asyncio.sleep(0.05)


def order(n: str) -> dict[str, Any]:
    return {"order_id": n, "customer": "c", "country": "DE", "lines": [{"sku": "sku-007", "qty": 1}]}


async def test_a_worker_and_an_orchestrator_are_killed_and_every_order_has_one_outcome(
    kafka_bootstrap: str, redis_url: str
) -> None:
    figures = await trial(
        log_url=f"kafka://{kafka_bootstrap}",
        board_url=redis_url,
        orders=1_500,
        kills=1,
        seed_mark=f"-{time.time_ns() % 10**8}",
    )
    assert figures["killed"] == ["orchestrator", "worker"]
    assert figures["endings"] == {"completed": 1_500}, figures
    wrong = ("lost", "ended_twice", "unasked", "orders_without_event", "orders_decided_twice")
    assert {name: figures[name] for name in wrong} == dict.fromkeys(wrong, 0)


async def test_confluent_kafka_puts_plain_json_and_both_modes_of_cloudevents_and_reads_outcomes(
    mesh: LiveMesh, kafka_bootstrap: str
) -> None:
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "partitioner": "murmur2_random"})
    attributes = {"specversion": "1.0", "id": "e-2", "source": "/shop", "type": "order.placed"}
    producer.produce(mesh.placed, json.dumps(order("plain")), "plain")
    headers: list[tuple[str, str | bytes | None]] = [(f"ce_{name}", value) for name, value in attributes.items()]
    producer.produce(mesh.placed, json.dumps(order("binary")), "binary", headers=headers)
    structured = {**attributes, "id": "e-3", "data": order("structured")}
    media: dict[str, str | bytes | None] = {"content-type": "application/cloudevents+json; charset=UTF-8"}
    producer.produce(mesh.placed, json.dumps(structured), "structured", headers=media)
    assert producer.flush(20) == 0
    assert [body["ending"] for body in await outcomes_of(mesh, 3)] == ["completed"] * 3
    assert await asyncio.to_thread(_consume, kafka_bootstrap, mesh.decided, 3) == {"plain", "binary", "structured"}


def _consume(bootstrap: str, topic: str, count: int) -> set[str]:
    """Read order ids of an egress topic in a foreign consumer group."""
    settings = {"bootstrap.servers": bootstrap, "group.id": f"foreign-{topic}", "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    seen: set[str] = set()
    deadline_s = time.monotonic() + 30
    while len(seen) < count and time.monotonic() < deadline_s:
        message = consumer.poll(1.0)
        if message is not None and message.error() is None:
            headers = dict(message.headers() or [])
            assert headers["ce_specversion"] == b"1.0"
            assert headers["ce_type"] == b"order.fulfilled"
            seen.add(json.loads(message.value() or b"{}")["order_id"])
    consumer.close()
    return seen


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
async def test_kcat_puts_an_order_and_reads_its_outcome(mesh: LiveMesh, kafka_bootstrap: str) -> None:
    await asyncio.to_thread(
        subprocess.run,
        ["kcat", "-P", "-b", kafka_bootstrap, "-t", mesh.placed, "-K", "|"],
        input=f"kcat|{json.dumps(order('kcat'))}".encode(),
        check=True,
        timeout=30,
    )
    await outcomes_of(mesh, 1)
    read = await asyncio.to_thread(
        subprocess.run,
        ["kcat", "-C", "-b", kafka_bootstrap, "-t", mesh.topology.outcomes, "-e", "-q", "-J"],
        capture_output=True,
        check=True,
        timeout=30,
    )
    (message,) = [json.loads(line) for line in read.stdout.splitlines()]
    assert json.loads(message["payload"])["ending"] == "completed"
    headers = dict(zip(message["headers"][::2], message["headers"][1::2], strict=True))
    assert headers["ce_type"] == "mesh.run.completed"


async def test_bad_records_on_an_ingress_topic_are_dead_letters_and_the_next_order_is_served(mesh: LiveMesh) -> None:
    producer = Producer({"bootstrap.servers": mesh.log.url.removeprefix("kafka://")})
    for bad in (b"\xff\xfe", b"not json", b"[" * 100_000, b'{"order_id": "a", "order_id": "b"}', b"{}", b""):
        producer.produce(mesh.placed, bad, "k")
    producer.produce(mesh.placed, json.dumps(order("good")), "k")
    assert producer.flush(20) == 0
    (body,) = await outcomes_of(mesh, 1)
    assert body["ending"] == "completed"
    dead = await records_of(mesh.log, mesh.topology.dead)
    reasons = sorted(dict(r.headers)["mesh-dlq-reason"].decode() for r in dead)
    assert reasons == ["bad_id", "duplicate_key", "empty_value", "too_deep", "unparseable", "unparseable"]


@pytest.mark.skipif(not WEBHOOKS.exists(), reason="the shared webhooks are not beside this checkout")
async def test_real_webhooks_have_the_same_outcomes_on_both_backends(mesh: LiveMesh) -> None:
    lines = [line for line in WEBHOOKS.read_bytes().splitlines() if line]
    on_kafka = await results_of(mesh.client, lines)
    async with MeshTest(str(ROOT / "topics.yaml")) as embedded:
        on_file = await results_of(embedded.client, lines)
    assert len(on_kafka) == len(lines)
    assert on_kafka == on_file


async def results_of(client: Mesh, lines: list[bytes]) -> dict[str, Any]:
    """Ending and payloads of every webhook's run, by an id that is the same on every backend."""
    events = [client.request("github.webhook", line, id=f"hook-{n}") for n, line in enumerate(lines)]
    runs = await client.send(events)
    found: dict[str, Any] = {}
    for run in runs:
        outcome = await run.outcome(timeout_s=120)
        assert outcome.ending == "completed", outcome.raw
        found[run.event_id] = sorted(
            (r.type, orjson.dumps(r.data, option=orjson.OPT_SORT_KEYS)) for r in outcome.results
        )
    return found
