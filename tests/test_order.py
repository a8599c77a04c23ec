"""Parallel and ordered tasks in a whole mesh."""

import asyncio
from collections import defaultdict
from typing import Any

import orjson
import pytest

from mesh import Emit
from mesh.core.protocol.record import NewRecord
from mesh.testing import MeshTest
from tests.services.conftest import append, read_all

PARTS = 20
FAN = """
mesh: {name: fan, inbox: {partitions: 6}}
topics:
  asks: {ingress: ask}
agents:
  split: {run: "no.such:function", on: ask, emits: part}
  work: {run: "no.such:function", on: part, KEY}
"""


class Fan:
    """A run that fans out. Its tasks end once `together` of them have run at the same time."""

    def __init__(self, together: int) -> None:
        self.together = together
        self.running = self.most = 0
        self.begun: list[int] = []
        self._all = asyncio.Event()

    def agents(self) -> dict[str, Any]:
        async def split(ask: dict[str, Any]) -> list[Emit]:
            return [Emit("part", {"n": n, "customer": "c-7"}) for n in range(PARTS)]

        async def work(part: dict[str, Any]) -> None:
            self.begun.append(part["n"])
            self.running += 1
            self.most = max(self.most, self.running)
            if self.running == self.together:
                self._all.set()
            async with asyncio.timeout(20):
                await self._all.wait()
            self.running -= 1

        return {"split": split, "work": work}

    async def through(self, mesh: MeshTest) -> str:
        run = await mesh.publish("ask", {})
        return (await run.outcome(timeout_s=30)).ending


async def test_tasks_of_one_run_are_done_at_once_and_lie_in_several_partitions() -> None:
    fan = Fan(together=PARTS)
    async with MeshTest(FAN.replace("KEY", "lanes: 64"), agents=fan.agents()) as mesh:
        assert await fan.through(mesh) == "completed"
        records = await read_all(mesh.log, mesh.topology.tasks("work"))
    assert fan.most == PARTS
    assert len({record.partition for record in records}) > 1
    assert len({record.key for record in records}) == PARTS


async def test_tasks_of_an_agent_with_a_key_are_done_one_after_the_other_in_their_order() -> None:
    fan = Fan(together=1)
    async with MeshTest(FAN.replace("KEY", "key: customer"), agents=fan.agents()) as mesh:
        assert await fan.through(mesh) == "completed"
    assert fan.most == 1
    assert fan.begun == list(range(PARTS))


KEYS, EVENTS = 60, 20
ORDERED = """
mesh: {name: ordered, inbox: {partitions: 6}}
topics:
  moves: {ingress: moved, order: key, FIELD partitions: 3}
agents:
  first: {run: "no.such:function", on: moved, emits: booked, key: customer, lanes: 256}
  second: {run: "no.such:function", on: booked, key: customer, lanes: 256}
"""


@pytest.mark.parametrize("field", ["key: customer,", ""])
async def test_events_of_one_key_are_begun_in_their_order_by_every_agent_with_that_key(field: str) -> None:
    begun: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))

    async def first(event: dict[str, Any]) -> Emit:
        begun["first"][event["customer"]].append(event["n"])
        return Emit("booked", event)

    async def second(event: dict[str, Any]) -> None:
        begun["second"][event["customer"]].append(event["n"])

    async with MeshTest(ORDERED.replace("FIELD", field), agents={"first": first, "second": second}) as mesh:
        moves = [{"customer": f"c-{key}", "n": n} for n in range(EVENTS) for key in range(KEYS)]
        await append(mesh.log, *(NewRecord("moves", str(m["customer"]).encode(), orjson.dumps(m)) for m in moves))
        async with asyncio.timeout(60):
            while sum(map(len, begun["second"].values())) < KEYS * EVENTS:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        requests = [r for r in await read_all(mesh.log, mesh.topology.inbox) if (r.key or b"")[24:26] == b":k"]
    for agent in ("first", "second"):
        assert begun[agent] == {f"c-{key}": list(range(EVENTS)) for key in range(KEYS)}
    assert len({record.partition for record in requests}) > 1, "keys spread over the inbox"
    homes: dict[bytes, set[int]] = defaultdict(set)
    for record in requests:
        homes[(record.key or b"")[25:]].add(record.partition)
    assert len(homes) == KEYS
    assert all(len(partitions) == 1 for partitions in homes.values()), "a key has one partition"


async def test_a_client_orders_by_the_field_that_the_topic_declares_or_by_the_key_that_it_gives() -> None:
    async def agent(event: dict[str, Any]) -> None: ...

    for field, key in (("key: customer,", None), ("", "c-7")):
        text = ORDERED.replace("FIELD", field)
        async with MeshTest(text, agents={"first": agent, "second": agent}) as mesh:
            runs = [await mesh.publish("moved", {"customer": "c-7", "n": n}, key=key) for n in range(5)]
            assert len({run.id for run in runs}) == 5
            assert len({run.id.partition(":")[2] for run in runs}) == 1
            assert len({run.position.partition for run in runs}) == 1
            assert [(await run.outcome(timeout_s=20)).ending for run in runs] == ["completed"] * 5


async def test_an_event_without_the_key_has_no_order() -> None:
    async def agent(event: dict[str, Any]) -> None: ...

    async with MeshTest(ORDERED.replace("FIELD", ""), agents={"first": agent, "second": agent}) as mesh:
        run = await mesh.publish("moved", {"customer": "c-7", "n": 1})
        assert ":" not in run.id
        assert (await run.outcome(timeout_s=20)).ending == "completed"
