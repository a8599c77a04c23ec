"""What is done at once and what is done in order, in a whole mesh."""

import asyncio
from typing import Any

from mesh import Emit
from mesh.testing import MeshTest
from tests.services.conftest import read_all

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
