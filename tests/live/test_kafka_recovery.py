"""Orchestrators on real Kafka are killed and frozen: the next one begins at the checkpoint that stands."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from bench.kills import ended, records_of
from bench.mesh_processes import Child, mesh_up
from mesh.adapters.ports import Appended, Log
from mesh.app.wiring import load_topology, open_log, topic_specs
from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import NO_USAGE, REQUESTED, Event, Part
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.state.checkpoint import CommitNote, read_note
from mesh.core.task import result
from mesh.core.topology.model import Topology
from mesh.settings import Settings

pytestmark = pytest.mark.live

TEXT = """
mesh: {{name: t, prefix: recovery{mark}, inbox: {{partitions: 2}}, limits: {{deadline: 10m}}}}
topics: {{asks{mark}: {{ingress: bench.ask, partitions: 1}}, answers{mark}: {{egress: bench.answer, partitions: 1}}}}
agents: {{echo: {{run: "bench.agents:echo", on: bench.ask, emits: bench.answer}}}}
"""
ORCHESTRATOR = [["orchestrator"]]


class LiveMesh:
    """A mesh with topics of its own, without a worker: tasks are answered by hand."""

    def __init__(self, log: Log, topology: Topology, urls: dict[str, str]) -> None:
        self.log, self.topology, self.urls = log, topology, urls
        self.environ = {"MESH_SESSION_TIMEOUT_MS": "6000"}
        self.group = f"{topology.prefix}.orchestrator"

    async def request(self, runs: range) -> None:
        """One request a run; returns when an orchestrator has committed them."""
        asked = [Event(f"e-{n}", "/test", "bench.ask", REQUESTED, f"run-{n}", b"{}") for n in runs]
        await self._append(asked)
        async with asyncio.timeout(60):
            while True:
                places, bounds = await self.places(), await self.log.bounds(self.topology.inbox)
                if all(places[p][0] == b.end for p, b in bounds.items()):
                    return
                await asyncio.sleep(0.05)

    async def answer(self) -> None:
        """Every task there is, once."""
        tasks = {}
        for record in await records_of(self.log, self.topology.tasks("echo")):
            task = read_event(record)
            assert isinstance(task, Event)
            tasks[task.task_id] = task
        await self._append(
            [result.success_event(task, [Part("bench.answer", b"1")], NO_USAGE) for task in tasks.values()]
        )

    async def places(self) -> dict[int, tuple[int, CommitNote]]:
        """Return the committed offsets of the orchestrators with their metadata."""
        nothing = {p: (-1, CommitNote("", 0)) for p in range(2)}
        commits = await self.log.committed(self.group, self.topology.inbox)
        return nothing | {p: (c.offset, read_note(c.metadata)) for p, c in commits.items()}

    async def endings(self, count: int) -> dict[str, str]:
        """Run → how it ended, once so many have."""
        assert await ended(self.log, self.topology.outcomes, count, 60)
        outcomes = [orjson.loads(r.value or b"") for r in await records_of(self.log, self.topology.outcomes)]
        assert len({o["run"] for o in outcomes}) == count
        return {o["run"]: o["ending"] for o in outcomes}

    async def _append(self, events: list[Event]) -> None:
        new = [NewRecord(self.topology.inbox, e.run_id.encode(), e.data, event_headers(e)) for e in events]
        assert all(isinstance(verdict, Appended) for verdict in await self.log.append(new))


@pytest.fixture
async def mesh(kafka_bootstrap: str, tmp_path: Path) -> AsyncIterator[LiveMesh]:
    path = tmp_path / "topics.yaml"
    path.write_text(TEXT.format(mark=f"-{time.time_ns() % 10**8}"))
    topology = load_topology(str(path))
    log = open_log(Settings(log=f"kafka://{kafka_bootstrap}", topology=str(path)), client="test")
    await log.start()
    await log.create_topics(topic_specs(topology))
    urls = {"log": log.url, "board": f"sqlite:{tmp_path / 'board.db'}", "topology": str(path)}
    yield LiveMesh(log, topology, urls)
    await log.close()


async def test_the_successor_of_a_killed_orchestrator_needs_the_checkpoint_and_the_tail_only(mesh: LiveMesh) -> None:
    async with mesh_up(ORCHESTRATOR, **mesh.urls, environ=mesh.environ):
        await mesh.request(range(300))
    stands = {p: note for p, (_, note) in (await mesh.places()).items()}
    async with mesh_up(ORCHESTRATOR, **mesh.urls, environ=mesh.environ) as (child,):
        await mesh.request(range(300, 500))
        child.kill()
    for partition, (place, note) in (await mesh.places()).items():
        assert note == stands[partition], "no process wrote another one"
        assert note.checkpoint
        assert 0 < note.offset < place
        await mesh.log.trim(TopicPartition(mesh.topology.inbox, partition), note.offset)
        assert (await mesh.log.bounds(mesh.topology.inbox))[partition].start == note.offset
    async with mesh_up(ORCHESTRATOR, **mesh.urls, environ=mesh.environ):
        await mesh.answer()
        assert set((await mesh.endings(500)).values()) == {"completed"}


async def test_what_a_frozen_orchestrator_writes_when_it_wakes_is_never_named(mesh: LiveMesh) -> None:
    zombie = Child("orchestrator", environ=_environ(mesh))
    await zombie.start()
    await mesh.request(range(100))
    assert zombie.process is not None
    zombie.process.send_signal(signal.SIGSTOP)
    async with mesh_up(ORCHESTRATOR, **mesh.urls, environ=mesh.environ):
        await mesh.request(range(100, 200))
        before = await mesh.places()
        zombie.process.send_signal(signal.SIGCONT)
        await zombie.end()
        assert {p: place for p, (place, _) in (await mesh.places()).items()} == {p: at for p, (at, _) in before.items()}
        await mesh.request(range(200, 300))  # the heir has all of them again, after the zombie's coming and going
    for partition, (place, note) in (await mesh.places()).items():
        assert note.checkpoint
        assert place == note.offset, "it was the heir, who stopped gracefully, that named one"
        held = (await mesh.log.bounds(mesh.topology.checkpoints))[partition]
        assert held.start <= note.checkpoint[0].first <= note.checkpoint[-1].last < held.end
    async with mesh_up(ORCHESTRATOR, **mesh.urls, environ=mesh.environ):
        await mesh.answer()
        assert set((await mesh.endings(300)).values()) == {"completed"}


def _environ(mesh: LiveMesh) -> dict[str, str]:
    names = {f"MESH_{name.upper()}": url for name, url in mesh.urls.items()}
    return {**names, **mesh.environ}
