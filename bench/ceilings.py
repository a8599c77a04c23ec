"""Upper limits: the rate of the log with one producer that does nothing else, and the rate of Python without a log.

On Kafka the log is loaded by Kafka's own `kafka-producer-perf-test`, if Java and the jars of `scripts/kafka` are there.
Otherwise aiokafka loads it, and its Python code is then a part of the limit. The embedded file is
loaded by batches of appends. Everything is acknowledged, nothing is compressed.
"""

import asyncio
import os
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from aiokafka import AIOKafkaProducer

from bench.decide import MESHES, best_us, perform_all, played
from bench.field import Field, Setup
from bench.load import BATCH, throughput
from bench.mesh_processes import ROOT
from bench.report import NONE, Figure, significant
from mesh.adapters.kafka.connection import Connection
from mesh.adapters.ports import Appended, TopicSpec
from mesh.core.protocol.record import NewRecord
from mesh.settings import load

TOOL: Final = "kafka-producer-perf-test"
TOOL_CLASS: Final = "org.apache.kafka.tools.ProducerPerformance"
PRODUCER: Final = ("acks=all", "linger.ms=5", "batch.size=262144", "compression.type=none")
RECORDS: Final = 400_000
"""Half of them warm Java up and do not count."""
PYTHON_RECORDS: Final = 20_000
ALONE_S: Final = 1.0
RUNS, ROUNDS = 1_000, 5
WARM_RUNS = 2_000
"""Fewer runs would end before the mesh has reached its full speed."""
_STEADY = re.compile(r"(\d+) steady state records sent, ([\d.]+) records/sec")


class Ceiling(NamedTuple):
    """The rate of a log."""

    records_per_s: float
    by: str
    """Name of the producer."""


async def log_alone(field: Field, record_bytes: int, *, records: int = RECORDS) -> Ceiling:
    """Measure the records of that size a second, on a topic of their own with as many partitions as the inbox."""
    topic = f"{field.topology.prefix}.ceiling"
    retention = {"retention.ms": "3600000"}
    await field.log.create_topics([TopicSpec(topic, field.topology.inbox_partitions, retention)])
    if not field.urls["log"].startswith("kafka:"):
        return await _appends(field, topic, record_bytes)
    bootstrap = field.urls["log"].removeprefix("kafka:").removeprefix("//").rstrip("/")
    found = await tool(bootstrap, topic, record_bytes, records)
    return found or await with_aiokafka(bootstrap, topic, record_bytes, min(records, PYTHON_RECORDS))


async def _appends(field: Field, topic: str, record_bytes: int) -> Ceiling:
    batch = [NewRecord(topic, b"%08d" % n, b"x" * record_bytes, []) for n in range(BATCH)]
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < ALONE_S:
        assert all(isinstance(verdict, Appended) for verdict in await field.log.append(batch))
        done += BATCH
    return Ceiling(done / (time.perf_counter() - began), f"appends of {BATCH}")


async def tool(bootstrap: str, topic: str, record_bytes: int, records: int) -> Ceiling | None:
    """Measure with Kafka's own tool; None where it cannot run, or where the broker needs authentication.

    Raises RuntimeError with its output when it failed.
    """
    java, jars = shutil.which("java"), _jars()
    if java is None or jars is None or load({}, directory=ROOT).settings.kafka:
        return None
    properties = [f"bootstrap.servers={bootstrap}", *PRODUCER]
    count = ["--num-records", str(records), "--warmup-records", str(records // 2), "--throughput", "-1"]
    process = await asyncio.create_subprocess_exec(
        *(java, "-Xmx256m", "-cp", f"{jars}/*", TOOL_CLASS, "--topic", topic, "--record-size", str(record_bytes)),
        *(*count, "--command-property", *properties),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    said = out.decode("utf-8", "replace").strip()
    found = steady(said)
    # It counts records that were refused as sent, and ends well.
    if process.returncode or found is None or "Exception" in said:
        raise RuntimeError(f"{TOOL} failed: {said[-500:]}")
    return Ceiling(found, TOOL)


def steady(said: str) -> float | None:
    """Records a second after the warming up, from what the tool says at its end; None where it does not say."""
    found = _STEADY.search(said)
    return float(found[2]) if found else None


def _jars() -> Path | None:
    """Return the folder of the jars that `scripts/kafka` has fetched; None: there are none."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agent-mesh"
    version = re.search(r"<kafka\.version>([^<]+)<", (ROOT / "scripts/kafka-broker/pom.xml").read_text())
    folder = cache / f"kafka-{version[1] if version else ''}"
    return folder if any(folder.glob("kafka-tools-*.jar")) else None


async def with_aiokafka(bootstrap: str, topic: str, record_bytes: int, records: int) -> Ceiling:
    """By hand-built batches, a few under way."""
    security = load({}, directory=ROOT).settings.kafka
    connection = Connection(bootstrap, client_id="bench", security=security, request_timeout_ms=30_000)
    producer = AIOKafkaProducer(**connection.arguments("ceiling"), acks="all", max_batch_size=262_144)
    await producer.start()
    value = b"x" * record_bytes
    try:
        partitions = sorted(await producer.partitions_for(topic))
        began, under_way, done = time.perf_counter(), [], 0
        while done < records:
            builder = producer.create_batch()
            while builder.append(key=None, value=value, timestamp=None) is not None:
                done += 1
            sent = await producer.send_batch(builder, topic, partition=partitions[done % len(partitions)])
            under_way.append(sent)
        await asyncio.gather(*under_way)
        return Ceiling(done / (time.perf_counter() - began), "aiokafka")
    finally:
        await producer.stop()


def python_alone(mesh: str, *, runs: int = RUNS) -> float:
    """Return the runs a second of one process that does the work of an orchestrator without a log.

    It reads, decides and writes as in `bench.decide`. The busiest process of the mesh cannot be faster.
    """
    topology = MESHES[mesh]
    inbox = played(topology, runs)
    per_event_us = best_us(ROUNDS, len(inbox), lambda: perform_all(topology, inbox))
    return 1e6 / (per_event_us * len(inbox) / runs)


async def with_ceilings(setup: Setup, text: str, mesh: str, *services: Sequence[str]) -> list[Figure]:
    """`throughput` of a mesh, and the ceilings of its runs; `mesh`: which of `bench.decide` has the same steps."""
    asked = await throughput(setup, text, *services, first=WARM_RUNS)
    async with setup.field(text) as field:
        setup.say("the log alone")
        ceiling = await log_alone(field, max(1, round(asked.log.bytes_per_run / asked.log.records_per_run)))
    setup.say("Python alone")
    by = {"by": ceiling.by}
    alone = ceiling.records_per_s / asked.log.records_per_run
    return [
        *asked.figures(),
        Figure("log_alone_records_per_s", significant(ceiling.records_per_s), "records/s", NONE, by),
        Figure("log_alone_runs_per_s", significant(alone), "runs/s", NONE, by, limit=True),
        Figure("python_alone_runs_per_s", significant(python_alone(mesh)), "runs/s", NONE, limit=True),
    ]
