"""The skeleton of run1 as a side of a comparison: its two processes and a bare client, under the load of the mesh."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.field import Field, Setup
from bench.load import Outcomes, bursts, watching
from bench.mesh_processes import ROOT
from bench.peers.compare import NotMeasured, Sample
from bench.peers.kills import Process
from bench.peers.setup import python
from bench.peers.skeleton import Appender, Topics, Written
from bench.workloads.run1 import TEXT
from mesh.client import Mesh
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import Event

ROLES = ("orchestrator", "worker")
RECORDS_MAX = 5_000


class BareOutcomes(Outcomes):
    """A counter of outcomes that reads with the library alone."""

    def __init__(self, field: Field, consumer: AIOKafkaConsumer) -> None:
        super().__init__(field.log, field.topology.outcomes)
        self._consumer = consumer

    async def watch(self) -> None:
        """Read until it is cancelled."""
        while True:
            got = await self._consumer.getmany(timeout_ms=500, max_records=RECORDS_MAX)
            self.count([record for part in got.values() for record in part], time.perf_counter())


class Bare(NamedTuple):
    """The skeleton, started, with its client."""

    field: Field
    outcomes: Outcomes
    processes: dict[str, Process]
    appender: Appender

    def cpu_s(self) -> dict[str, float]:
        """Return the processor time of each process so far."""
        return {name: process.cpu_s() for name, process in self.processes.items()} | {"client": time.process_time()}

    async def send(self, mesh: Mesh, events: Sequence[Event]) -> None:
        """Append requests in plain form."""
        inbox = mesh.topology.inbox
        records = [Written(inbox, e.run_id.encode(), e.data, list(event_headers(e))) for e in events]
        if len(records) == 1:
            await self.appender.send_one(records[0])
        else:
            await asyncio.gather(*await self.appender.send(records))


@asynccontextmanager
async def bare(setup: Setup) -> AsyncIterator[Bare]:
    """Topics made as for the mesh, both processes started; all ended after the block."""
    bootstrap = setup.log.removeprefix("kafka://")
    async with setup.field(TEXT) as field:
        topology = field.topology
        topics = Topics(topology.inbox, topology.tasks("echo"), topology.outcomes, topology.egress["bench.answer"].name)
        consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
        appender = Appender(bootstrap)
        with TemporaryDirectory(prefix="mesh-peers-") as folder:
            options = [word for name, topic in topics._asdict().items() for word in (f"--{name}", topic)]
            processes = {}
            for role in ROLES:
                command = [str(python()), "-m", "bench.peers.skeleton", role, "--bootstrap", bootstrap, *options]
                own = Path(folder) / role
                own.mkdir()
                processes[role] = Process(command, folder=own, cwd=ROOT, environ={})
            try:
                for process in processes.values():
                    await process.start()
                await consumer.start()
                await appender.start([topics.inbox])
                places = [TopicPartition(topics.outcomes, p) for p in range(topology.inbox_partitions)]
                consumer.assign(places)
                for place in places:  # The topic is new. Its end may have no leader to ask yet.
                    consumer.seek(place, 0)
                async with watching(BareOutcomes(field, consumer)) as outcomes:
                    yield Bare(field, outcomes, processes, appender)
            finally:
                for process in processes.values():
                    await process.kill()
                await appender.stop()
                await consumer.stop()


async def throughput(setup: Setup) -> Sample:
    """Runs a second, and processor time of all its processes a run. Raises NotMeasured."""
    async with bare(setup) as side:
        try:
            found = await bursts(setup, side.field, side.outcomes, side.cpu_s, by=side.send)
        except (RuntimeError, TimeoutError) as error:
            raise failure(side, error) from error
    return Sample(median(found.runs_per_s), sum(found.cpu_us_per_run.values()))


def failure(side: Bare, error: Exception) -> NotMeasured:
    """Return the reason why nothing was measured: that a process ended, with its last words, or the error."""
    for process in side.processes.values():
        process.check()
    return NotMeasured(str(error) or "its runs did not end in time")
