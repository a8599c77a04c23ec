"""The monitor as a Faust app on real Kafka: the windows of the plain one, after a `kill -9` too."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.faust.window_source import FaustSource
from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import Log
from mesh.app.wiring import load_topology, topic_specs
from mesh.core.metrics.measurements import source_topics
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.model import FAUST_GROUP, Limits, Topology
from mesh.services.monitor import Monitor, Source
from tests.cli.conftest import PROJECT, Cli
from tests.core.metrics.scenario import MESH, scenario
from tests.services.conftest import append
from tests.services.test_monitor import published, recounted

pytestmark = pytest.mark.live
DEADLINE_S = 180.0


async def play(log: Log, topology: Topology, first: int = 0, last: int | None = None) -> None:
    records = sorted((r for some in scenario().values() for r in some), key=lambda r: r.timestamp)[first:last]
    names = dict(zip(source_topics(MESH), source_topics(topology), strict=True))
    await append(log, *(NewRecord(names[r.topic], r.key, r.value, r.headers) for r in records))


async def until_published(log: Log, topology: Topology) -> None:
    """Wait until what is published is what the log gives."""
    clock, expected = SystemClock(), await recounted(log, topology)
    async with asyncio.timeout(DEADLINE_S):
        while await published(log, topology) != expected:
            await clock.sleep_ms(100)


async def rows_of(log: Log, changelog: str) -> int:
    """The number of records of a topic that Faust makes."""
    if changelog not in await log.topics():
        return 0
    return sum(each.end for each in (await log.bounds(changelog)).values())


@asynccontextmanager
async def watching(log: Log, topology: Topology, source: Source | None) -> AsyncIterator[None]:
    monitor, stop = Monitor(log, topology, SystemClock(), source=source), asyncio.Event()
    task = asyncio.ensure_future(monitor.run(stop))
    try:
        async with asyncio.timeout(DEADLINE_S):
            await monitor.ready.wait()
        yield
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE_S):
            await task


async def test_faust_gives_the_windows_of_the_plain_monitor(kafka_log: KafkaLog, kafka_bootstrap: str) -> None:
    topology = replace(MESH, prefix="faust-and-plain")
    await kafka_log.create_topics(topic_specs(topology))
    await play(kafka_log, topology, 0, 6)
    async with watching(kafka_log, topology, FaustSource(kafka_bootstrap, topology)):
        await until_published(kafka_log, topology)
    await play(kafka_log, topology, 6)
    async with watching(kafka_log, topology, FaustSource(kafka_bootstrap, topology)):
        await until_published(kafka_log, topology)
    by_faust = await published(kafka_log, topology)
    before = (await kafka_log.bounds(topology.windows))[0].end
    async with watching(kafka_log, topology, None):
        async with asyncio.timeout(DEADLINE_S):
            while (await kafka_log.bounds(topology.windows))[0].end < before + len(by_faust):
                await SystemClock().sleep_ms(100)
    assert await published(kafka_log, topology) == by_faust == await recounted(kafka_log, topology)


async def test_a_faust_monitor_killed_in_a_window_counts_it_again(
    kafka_log: KafkaLog, kafka_bootstrap: str, tmp_path: Path
) -> None:
    shutil.copytree(PROJECT, tmp_path / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    file = tmp_path / "desk" / "topics.yaml"
    file.write_text(file.read_text().replace("prefix: mesh", "prefix: faust-killed"))
    topology = load_topology(str(file))
    await kafka_log.create_topics(topic_specs(topology))
    cli = Cli(None, tmp_path / "desk", tmp_path)
    changelog = f"{topology.group(FAUST_GROUP)}-window-starts-changelog"
    up = ("monitor", "--log", f"kafka://{kafka_bootstrap}")
    with cli.up(*up) as monitor:
        await play(kafka_log, topology, 0, 8)
        async with asyncio.timeout(DEADLINE_S):  # its table has a row, so it has counted records of an open window
            while not await rows_of(kafka_log, changelog):
                await SystemClock().sleep_ms(20)
        monitor.process.send_signal(signal.SIGKILL)
    await play(kafka_log, topology, 8)
    with cli.up(*up):
        await until_published(kafka_log, topology)


async def test_records_that_no_window_needs_are_committed(kafka_log: KafkaLog, kafka_bootstrap: str) -> None:
    topology = replace(MESH, prefix="faust-commits", limits=Limits(deadline_ms=100))
    await kafka_log.create_topics(topic_specs(topology))
    async with watching(kafka_log, topology, FaustSource(kafka_bootstrap, topology)):
        async with asyncio.timeout(DEADLINE_S):  # in the third window: the second one needs the runs of the first
            while not any(
                commit.offset for commit in (await kafka_log.committed(group(topology), topology.inbox)).values()
            ):
                await play(kafka_log, topology)
                await SystemClock().sleep_ms(1_000)
    async with watching(kafka_log, topology, FaustSource(kafka_bootstrap, topology)):
        await until_published(kafka_log, topology)


def group(topology: Topology) -> str:
    return topology.group(FAUST_GROUP)
