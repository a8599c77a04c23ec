"""A mesh for tests of what is too large: its agents answer with as many events as they are asked for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import orjson

from mesh import Payload, agent
from mesh.adapters.ports import Appended, Log
from mesh.app.process import Process, running
from mesh.app.wiring import open_board, open_log, topic_specs
from mesh.client import Mesh
from mesh.core.protocol.event import run_id_of
from mesh.core.protocol.record import RECORD_BYTES_MAX, NewRecord, Record, TopicPartition
from mesh.core.task.agent import describe
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology
from mesh.settings import Settings

TOPOLOGY = """
mesh:
  name: large
  prefix: MARK
  inbox: {partitions: 1}
  limits: {deadline: 60s, tasks_max: 400, fanout_max: 200, state_max: 8MB}
topics:
  asks.MARK: {ingress: ask, id: id, partitions: 1}
  ends.MARK: {egress: done, partitions: 1}
agents:
  split: {run: "tests.large_kit:split", on: ask, emits: part, retry: {attempts: 1}}
  work: {run: "tests.large_kit:work", on: part, emits: done, retry: {attempts: 1}}
"""


Form = Literal["packed", "plain"]


class Ask(Payload, type="ask"):
    id: str
    parts: int = 1
    fails: int = 0


class Part(Payload, type="part"):
    n: int
    done: int = 1
    fails: int = 0


class Done(Payload, type="done"):
    n: int
    text: str = ""


@agent
async def split(ask: Ask) -> list[Part]:
    return [Part(n=n, done=64 if ask.parts > 1 else 1, fails=ask.fails) for n in range(ask.parts)]


@agent
async def work(part: Part) -> list[Done]:
    if part.fails:
        raise ValueError("x" * part.fails)
    return [Done(n=n, text="x" * 140) for n in range(part.done)]


class Large:
    """The mesh and its log."""

    def __init__(self, log: Log, topology: Topology) -> None:
        self.log, self.topology, self.client = log, topology, Mesh(log, topology)
        self.asks, self.ends = f"asks.{topology.prefix}", f"ends.{topology.prefix}"

    async def run(self, id: str, *, parts: int = 1, fails: int = 0) -> dict[str, object]:
        """Ask for a run; answers the body of its outcome."""
        run = await self.client.publish("ask", Ask(id=id, parts=parts, fails=fails))
        return (await run.outcome(timeout_s=60)).raw

    async def put_good(self, count: int, *, first: int = 0) -> set[str]:
        """Put requests on the ingress topic; answers their ids."""
        ids = [f"good-{n}" for n in range(first, first + count)]
        records = [NewRecord(self.asks, id.encode(), orjson.dumps({"id": id})) for id in ids]
        assert all(isinstance(verdict, Appended) for verdict in await self.log.append(records))
        return set(ids)

    async def ended(self, ids: set[str]) -> None:
        """Returns when all requests of the ingress topic with these ids have ended `completed`."""
        for id in ids:
            outcome = await self.client.outcome(run_id_of(f"/topics/{self.asks}", id), timeout_s=60)
            assert outcome.ending == "completed", outcome.raw

    async def records(self, topic: str) -> list[Record]:
        """Read all records of a topic."""
        bounds = await self.log.bounds(topic)
        reader = self.log.reader({TopicPartition(topic, number): b.start for number, b in bounds.items()})
        found: list[Record] = []
        try:
            while any(reader.position(TopicPartition(topic, number)) < b.end for number, b in bounds.items()):
                found.extend(await reader.poll(records_max=1_000, wait_ms=200))
        finally:
            await reader.close()
        return found


@asynccontextmanager
async def large_mesh(
    log: str,
    board: Path,
    mark: str,
    *,
    record_bytes_max: int = RECORD_BYTES_MAX,
    up: bool = True,
    form: Form = "packed",
) -> AsyncIterator[Large]:
    """A whole mesh in this process. `up` False: only its topics are there. `form`: of its headers."""
    topology = load(TOPOLOGY.replace("MARK", mark))
    settings = Settings(
        log=log,
        board=f"sqlite:{board}",
        record_bytes_max=record_bytes_max,
        drain_timeout_ms=1_000,
        internal_headers=form,
    )
    agents = {"split": describe(split), "work": describe(work)}
    opened = open_log(settings, client="test")
    await opened.start()
    try:
        shared = open_board(settings, prefix=topology.prefix, beside=opened)
        await shared.start()
        try:
            await opened.create_topics(topic_specs(topology))
            large = Large(opened, topology)
            try:
                if up:
                    async with running(Process(opened, topology, settings, agents=agents, board=shared)):
                        yield large
                else:
                    yield large
            finally:
                await large.client.close()
        finally:
            await shared.close()
    finally:
        await opened.close()
