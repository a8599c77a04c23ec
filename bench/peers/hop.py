"""The workload hop, ours and the peers': consume, validate, handle, publish with a key, commit.

Every side gets topics of its own with the same records, and a process of its own. The time is measured from a tenth of
the answers, or WARM_S after the first one if that is sooner, to the last one. So starting and joining a group do not
count. After `seconds_max` the measurement stops. A kill test has few messages that take long: see `kills`.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import orjson

from bench.mesh_processes import ROOT, private_topology
from bench.peers.compare import NotMeasured, Sample
from bench.peers.kills import Process, Verdict, kill_and_count, warm
from bench.peers.setup import python
from bench.peers.topics import Topics, opened
from mesh.app.wiring import load_topology, open_log, topic_specs
from mesh.core.protocol.codec import internal_headers
from mesh.core.protocol.event import TASK, Event
from mesh.settings import Settings

TOPOLOGY = Path(__file__).with_name("topology.yaml")
SESSION_MS = 6_000
KILL_WORK_S = 16.0
"""Seconds that a side needs for the messages of a kill test, if it is never killed."""


class Peer(NamedTuple):
    """A program in this folder. `lanes`: messages it has in work at once."""

    name: str
    module: str
    variant: str = ""
    lanes: int = 1


PEERS = (
    Peer("raw aiokafka", "hop_aiokafka"),
    Peer("confluent-kafka", "hop_confluent"),
    Peer("FastStream", "hop_faststream", "default"),
    Peer("FastStream, 64 workers", "hop_faststream", "workers", 64),
    Peer("FastStream, safe ack", "hop_faststream", "safe", 6),
    Peer("Faust", "hop_faust"),
)
OURS = Peer("mesh worker", "", lanes=16)
"""Its lanes in a kill test; otherwise those of topology.yaml."""


class Task(NamedTuple):
    """A message: its id, and what lies on the topic."""

    id: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


def tasks(count: int, *, ours: bool) -> Iterator[Task]:
    """The same tasks for everyone; ours have the header that a task has."""
    for n in range(count):
        id = f"ask-{n:07d}"
        body = {"id": id, "text": "what is the sum of these numbers? " * 4, "numbers": [n, 2, 3]}
        value = orjson.dumps(body)
        headers: Sequence[tuple[str, bytes]] = ()
        if ours:
            event = Event(
                f"{id}:1",
                "/mesh/peers",
                "bench.ask",
                TASK,
                id,
                value,
                agent="echo",
                task_id=id,
                depth=1,
                path=("echo",),
                cause_id=id,
            )
            headers = internal_headers(event)
        yield Task(id, id.encode(), value, headers)


class Stage:
    """One side with its topics and its process: what `kills` calls a subject."""

    def __init__(self, topics: Topics, process: Process, *, source: str, target: str, group: str, touch: Path) -> None:
        self.process, self.target = process, target
        self._topics, self._source, self._group, self._touch = topics, source, group, touch

    def begun(self) -> int:
        return self._touch.stat().st_size if self._touch.exists() else 0

    async def count(self) -> int:
        return await self._topics.count(self.target)

    async def promised(self) -> int:
        return await self._topics.committed(self._group, self._source)

    async def answers(self) -> list[str]:
        return list((await self._topics.keys(self.target)).elements())


@asynccontextmanager
async def staged(peer: Peer, bootstrap: str, topics: Topics, messages: int, work_ms: float) -> AsyncIterator[Stage]:
    """Topics made and filled; the process not yet started. All gone after the block."""
    mark = f"{time.time_ns()}"
    with TemporaryDirectory(prefix="mesh-peers-") as name:
        folder = Path(name)
        touch = folder / "begun"
        make: Callable[..., Any] = _ours if peer is OURS else _theirs
        stage, made = await make(peer, bootstrap, topics, mark, folder, touch, work_ms)
        try:
            yield await _filled(stage, topics, messages, ours=peer is OURS)
        finally:
            await stage.process.kill()
            await topics.delete(made)


async def _filled(stage: Stage, topics: Topics, messages: int, *, ours: bool) -> Stage:
    await topics.fill(stage._source, ((t.key, t.value, t.headers) for t in tasks(messages, ours=ours)))
    return stage


async def _theirs(
    peer: Peer, bootstrap: str, topics: Topics, mark: str, folder: Path, touch: Path, work_ms: float
) -> tuple[Stage, list[str]]:
    source, target, group = f"peers.asks.{mark}", f"peers.answers.{mark}", f"peers-{mark}"
    options = ["--bootstrap", bootstrap, "--source", source, "--target", target, "--group", group]
    options += ["--variant", peer.variant, "--session-ms", str(SESSION_MS)]
    if work_ms:
        options += ["--work-ms", str(work_ms), "--touch", str(touch)]
    await topics.make(source, target)
    command = [str(python()), "-m", f"bench.peers.{peer.module}", *options]
    process = Process(command, folder=folder, cwd=ROOT, environ={})
    return Stage(topics, process, source=source, target=target, group=group, touch=touch), [source, target]


async def _ours(
    peer: Peer, bootstrap: str, topics: Topics, mark: str, folder: Path, touch: Path, work_ms: float
) -> tuple[Stage, list[str]]:
    declared = TOPOLOGY
    if work_ms:
        declared = folder / "slow.yaml"
        declared.write_text(TOPOLOGY.read_text().replace("lanes: 1024", f"lanes: {peer.lanes}"))
    path = str(private_topology(declared, folder, f"-{mark}"))
    topology = load_topology(path)
    url = f"kafka://{bootstrap}"
    log = open_log(Settings(log=url, topology=path), client="peers")
    await log.start()
    try:
        specs = topic_specs(topology)
        await log.create_topics(specs)
    finally:
        await log.close()
    environ = {"MESH_LOG": url, "MESH_BOARD": f"sqlite:{folder}/board.db", "MESH_TOPOLOGY": path}
    if work_ms:
        environ |= {"PEERS_WORK_MS": str(work_ms), "PEERS_TOUCH": str(touch)}
    environ["MESH_SESSION_TIMEOUT_MS"] = str(SESSION_MS)
    process = Process([sys.executable, "-m", "mesh", "up", "worker"], folder=folder, cwd=ROOT, environ=environ)
    source, group = topology.tasks("echo"), f"{topology.prefix}.echo"
    stage = Stage(topics, process, source=source, target=topology.inbox, group=group, touch=touch)
    return stage, [spec.name for spec in specs]


async def throughput(peer: Peer, bootstrap: str, topics: Topics, *, messages: int, seconds_max: float) -> Sample:
    """Answers a second. Raises NotMeasured when none come, or the process ends."""
    async with staged(peer, bootstrap, topics, messages, 0.0) as stage:
        process = stage.process
        await process.start()
        first = await warm(stage, messages, 60 + seconds_max)
        began, cpu_s, last = time.perf_counter(), process.cpu_s(), first
        while last < messages and time.perf_counter() - began < seconds_max:
            process.check()
            await asyncio.sleep(0.01)
            last = await stage.count()
        spent, cpu_s = time.perf_counter() - began, process.cpu_s() - cpu_s
    if last == first:
        raise NotMeasured(f"all {messages} answers came at once: give it more messages")
    return Sample((last - first) / spent, cpu_s * 1e6 / (last - first))


async def killed(peer: Peer, bootstrap: str, *, messages: int) -> Verdict:
    """Kill it twice in the middle of `messages` slow ones, and count. Has a connection of its own, so that several can
    be killed at the same time."""
    work_ms = KILL_WORK_S * 1000 * peer.lanes / messages
    async with opened(bootstrap) as topics, staged(peer, bootstrap, topics, messages, work_ms) as stage:
        ids = [task.id for task in tasks(messages, ours=False)]
        return await kill_and_count(stage, ids, kills=2, up_s_min=6.0, settle_s=25.0, deadline_s=240.0)
