"""A whole mesh whose agents fail until they are mended."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from mesh import Emit, Outcome, Payload
from mesh.operations.dead_letters import Case, DeadLetters, Selection
from mesh.testing import MeshTest

TOPOLOGY = """
mesh: {name: t, prefix: mesh, inbox: {partitions: 2}, limits: {deadline: 30s, depth_max: 3}}
topics:
  asks: {ingress: ask, id: id, partitions: 2}
  loose: {ingress: free, partitions: 2}
  laps: {ingress: go, partitions: 2}
  answers: {egress: [answer, noted], partitions: 2}
agents:
  first: {run: "t:first", on: ask, emits: [half, noted], timeout: 5s, retry: {attempts: 1}}
  second: {run: "t:second", on: half, emits: answer, timeout: 5s, retry: {attempts: 2, first: 1ms, max: 2ms}}
  third: {run: "t:third", on: free, emits: answer, timeout: 5s, retry: {attempts: 1}}
  runner: {run: "t:run", on: go, emits: [go, answer], visits_max: 2, timeout: 5s, retry: {attempts: 1}}
"""
DEADLINE_S = 20.0


class Ask(Payload, type="ask"):
    id: str
    n: int = 0


class Half(Payload, type="half"):
    id: str
    n: int = 0


class Free(Payload, type="free"):
    n: int


class Go(Payload, type="go"):
    lap: int


class Shop:
    """The agents; `broken` is True until the test fixes them."""

    def __init__(self) -> None:
        self.broken = True
        self.slow = asyncio.Event()
        """While it is set, `second` works for ever."""
        self.working = asyncio.Event()
        self.asked: list[tuple[str, Any]] = []
        self.mesh: MeshTest
        self.dead: DeadLetters

    def agents(self) -> dict[str, Callable[..., Any]]:
        """By name; each a function, since agents are."""

        async def first(ask: Ask) -> list[Emit]:
            self.asked.append(("first", ask.id))
            return [Emit("half", {"id": ask.id, "n": ask.n}), Emit("noted", {"id": ask.id})]

        async def second(half: Half) -> Emit:
            self.asked.append(("second", half.id))
            while self.slow.is_set():
                self.working.set()
                await asyncio.sleep(0.005)
            if self.broken and half.n < 100:
                raise ValueError(f"no {half.id}")
            return Emit("answer", {"id": half.id, "n": half.n})

        async def third(free: Free) -> Emit:
            self.asked.append(("third", free.n))
            return Emit("answer", {"n": free.n})

        async def runner(go: Go) -> Emit:
            self.asked.append(("runner", go.lap))
            return Emit("go", {"lap": go.lap + 1}) if self.broken else Emit("answer", {"lap": go.lap})

        return {"first": first, "second": second, "third": third, "runner": runner}

    async def failed(self, *ids: str, **payload: Any) -> list[str]:
        """Runs that ended failed; their ids."""
        runs = [await self.mesh.publish("ask", {"id": id, **payload}) for id in ids]
        for run in runs:
            assert (await run.outcome(timeout_s=DEADLINE_S)).ending == "failed"
        return [run.id for run in runs]

    async def letters(self, **chosen: Any) -> list[Case]:
        """The letters that fit."""
        return await self.dead.select(Selection(**chosen))

    async def sent(self, **chosen: Any) -> list[str]:
        """Redrive what fits and wait; answers the results."""
        report = await self.dead.redrive(await self.dead.plan(await self.letters(**chosen)), by="ann")
        return [entry.result for entry in await self.dead.wait(report, timeout_s=DEADLINE_S)]

    async def outcomes(self, run_id: str) -> list[Outcome]:
        """Every outcome of a run, in order."""
        from mesh.client import outcome_of
        from mesh.runtime.log_reader import read_records

        bounds = await self.mesh.log.bounds(self.mesh.topology.outcomes)
        found = read_records(self.mesh.log, self.mesh.topology.outcomes, bounds)
        return [outcome_of(orjson.loads(r.value or b"")) async for r in found if r.key == run_id.encode()]

    async def on_inbox(self, kind: str) -> list[str]:
        """Ids of the records of a kind on the inbox."""
        from mesh.core.protocol.codec import plain_headers
        from mesh.runtime.log_reader import read_records

        bounds = await self.mesh.log.bounds(self.mesh.topology.inbox)
        records = read_records(self.mesh.log, self.mesh.topology.inbox, bounds)
        found = [dict(plain_headers(record.headers)) async for record in records]
        return [headers["ce_id"].decode() for headers in found if headers["ce_meshkind"] == kind.encode()]


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    async with MeshTest(TOPOLOGY, agents=shop.agents()) as mesh:
        shop.mesh, shop.dead = mesh, DeadLetters(mesh.log, mesh.topology)
        yield shop
