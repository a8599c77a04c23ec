"""One run is one trace on real Kafka, over three processes, with the attributes of Kafka."""

import asyncio
import time
from pathlib import Path

import orjson
import pytest
from confluent_kafka import Producer

from bench.mesh_processes import ROOT, mesh_up, private_topology
from mesh.app.wiring import load_topology, open_log, topic_specs
from mesh.settings import Settings
from tests.cli.test_traces import TRACEPARENT, UPSTREAM, check_attributes
from tests.collector import ReceivedSpan, span_collector

pytestmark = pytest.mark.live
ORDER = {"order_id": "o-1", "customer": "c-1", "lines": [{"sku": "a", "quantity": 1, "unit_usd": 5}]}


async def test_a_run_on_kafka_is_one_trace_with_the_places_of_its_records(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path
) -> None:
    mark = f"-{time.time_ns() % 10**8}"
    path = private_topology(ROOT / "topics.yaml", tmp_path, mark)
    topology, log_url = load_topology(str(path)), f"kafka://{kafka_bootstrap}"
    log = open_log(Settings(log=log_url, topology=str(path)), client="test")
    await log.start()
    await log.create_topics(topic_specs(topology))
    await log.close()
    services = [["intake"], ["orchestrator"], ["worker"]]

    def is_done(spans: list[ReceivedSpan]) -> bool:
        return any(span.name.startswith("process orders.") for span in spans) and any(
            span.name == f"send {topology.inbox}" for span in spans
        )

    with span_collector() as collected:
        async with mesh_up(services, log=log_url, board=redis_url, topology=str(path), environ=collected.environ):
            producer = Producer({"bootstrap.servers": kafka_bootstrap})
            headers: list[tuple[str, str | bytes | None]] = [("traceparent", TRACEPARENT.encode())]
            producer.produce(f"orders.placed{mark}", orjson.dumps(ORDER), key=b"o-1", headers=headers)
            assert producer.flush(30) == 0
            await asyncio.to_thread(collected.until, is_done)
        spans = collected.spans
    assert {span.trace_id for span in spans} == {UPSTREAM}
    assert {"mesh-intake", "mesh-worker"} <= {span.service for span in spans}
    host, _, port = kafka_bootstrap.rpartition(":")
    for span in spans:
        check_attributes(span)
        if span.name.startswith("process "):
            assert span.attributes["messaging.system"] == "kafka"
            assert span.attributes["messaging.kafka.offset"] >= 0
            assert (span.attributes["server.address"], span.attributes["server.port"]) == (host, int(port))
