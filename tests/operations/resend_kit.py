"""A mesh whose requests are sent again, and what lies on its topics."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from mesh import Emit, Payload
from mesh.adapters.ports import Log
from mesh.core.dead_letters.resend_plan import ResendOptions
from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import REQUESTED, Event
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.topology.model import Topology
from mesh.operations.resend import RequestChoice, ResendPlan, plan_resend, read_requests
from mesh.runtime.log_reader import read_records
from mesh.testing import MeshTest

TOPOLOGY = """
mesh: {name: t, prefix: mesh, inbox: {partitions: 3}, limits: {deadline: 30s}}
topics:
  asks: {ingress: ask, id: id, partitions: 2}
  bids: {ingress: bid, order: key, partitions: 4}
  joins: {ingress: more, join: true, partitions: 2}
  answers: {egress: [answer], partitions: 2}
agents:
  asker: {run: "t:asker", on: ask, emits: answer, timeout: 5s}
  bidder: {run: "t:bidder", on: bid, key: n, emits: answer, timeout: 5s}
  joiner: {run: "t:joiner", on: more, emits: answer, timeout: 5s}
"""
OTHER = TOPOLOGY.replace("name: t, prefix: mesh", "name: u, prefix: other").replace("  asks:", "  asks2:")
DEADLINE_S = 20.0


class Ask(Payload, type="ask"):
    id: str = ""
    n: int = 0


class Bid(Payload, type="bid"):
    n: int


class More(Payload, type="more"):
    n: int


class House:
    """A mesh, what its agents got, and a resend into it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Any]] = []
        self.gate = asyncio.Event()
        """While it is not set, `asker` waits."""
        self.gate.set()
        self.mesh: MeshTest

    def agents(self) -> dict[str, Any]:
        """By name."""

        async def asker(ask: Ask) -> Emit:
            await self.gate.wait()
            self.got.append(("ask", ask.id or ask.n))
            return Emit("answer", {"id": ask.id})

        async def bidder(bid: Bid) -> Emit:
            self.got.append(("bid", bid.n))
            return Emit("answer", {"n": bid.n})

        async def joiner(more: More) -> Emit:
            self.gate.set()
            self.got.append(("more", more.n))
            return Emit("answer", {"n": more.n})

        return {"asker": asker, "bidder": bidder, "joiner": joiner}

    async def took(self, *records: NewRecord) -> None:
        """Send records to ingress topics, and wait until their tasks have run."""
        await self.mesh.log.append(records)
        await self.until(len(self.got) + len(records))

    async def until(self, number: int) -> None:
        """Wait for the number of tasks."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.got) < number:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert len(self.got) == number

    async def plan(self, *, options: ResendOptions = ResendOptions(), **choice: Any) -> ResendPlan:  # noqa: B008
        """Plan for the same mesh."""
        return await plan_into(self, self.mesh.log, self.mesh.topology, options=options, **choice)


async def plan_into(
    house: House,
    log: Log,
    topology: Topology,
    *,
    options: ResendOptions = ResendOptions(),  # noqa: B008
    **choice: Any,
) -> ResendPlan:
    found = await read_requests(house.mesh.log, house.mesh.topology, RequestChoice(**choice))
    return await plan_resend(log, topology, found.requests, house.mesh.topology.prefix, options)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    async with MeshTest(TOPOLOGY, agents=house.agents()) as mesh:
        house.mesh = mesh
        yield house


async def records_of(log: Log, topic: str) -> list[Record]:
    async with aclosing(read_records(log, topic, await log.bounds(topic))) as records:
        return [record async for record in records]


async def requests_of(log: Log, topology: Topology) -> list[Event]:
    events = [read_event(record) for record in await records_of(log, topology.inbox)]
    return [event for event in events if isinstance(event, Event) and event.kind == REQUESTED]


async def until_requested(house: House, number: int) -> list[Event]:
    async with asyncio.timeout(DEADLINE_S):
        while len(events := await requests_of(house.mesh.log, house.mesh.topology)) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return events


def ask(id: str, **more: Any) -> NewRecord:
    return NewRecord("asks", f"key-{id}".encode(), orjson.dumps({"id": id, **more}))
