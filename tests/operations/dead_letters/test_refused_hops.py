"""Hops that the budget refused, sent again: each redrive takes its own refusal back, however often it is repeated."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from mesh import Emit, Outcome, Payload
from mesh.adapters.clock import SystemClock
from mesh.operations.dead_letters import Case, DeadLetters, RedriveOptions, Selection
from mesh.operations.verification import verify
from mesh.testing import MeshTest
from tests.operations.dead_letters.conftest import DEADLINE_S

TOPOLOGY = """
mesh: {name: t, inbox: {partitions: 2}, limits: {deadline: 30s, budget: {usd: 1}}}
topics:
  asks: {ingress: asked, id: id, partitions: 2}
  answers: {egress: done, partitions: 2}
agents:
  split: {run: "t:split", on: asked, emits: [mid, done], timeout: 5s}
  first: {run: "t:first", on: mid, timeout: 5s, reserve: {usd: 0.6}}
  second: {run: "t:second", on: mid, timeout: 5s, reserve: {usd: 0.6}}
  third: {run: "t:third", on: mid, timeout: 5s, reserve: {usd: 0.6}}
"""


class Asked(Payload, type="asked"):
    id: str


class Mid(Payload, type="mid"):
    id: str


class Desk:
    """A run of which two hops were refused."""

    def __init__(self, mesh: MeshTest, worked: list[str]) -> None:
        self.mesh, self.worked = mesh, worked
        self.dead = DeadLetters(mesh.log, mesh.topology)
        self.run_id = ""

    async def letter(self, agent: str) -> Case:
        (case,) = await self.dead.select(Selection(agent=agent))
        return case

    async def redriven(self, agent: str) -> str:
        plan = await self.dead.plan([await self.letter(agent)], RedriveOptions(again=True))
        (entry,) = await self.dead.wait(await self.dead.redrive(plan), timeout_s=DEADLINE_S)
        return entry.result

    async def outcome(self) -> Outcome:
        return await self.mesh.client.outcome(self.run_id, timeout_s=DEADLINE_S)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    worked: list[str] = []

    async def split(asked: Asked) -> list[Emit]:
        return [Emit("mid", {"id": asked.id}), Emit("done", {"id": asked.id})]

    async def first(mid: Mid) -> None:
        worked.append("first")

    async def second(mid: Mid) -> None:
        worked.append("second")

    async def third(mid: Mid) -> None:
        worked.append("third")

    agents: dict[str, Callable[..., Any]] = {"split": split, "first": first, "second": second, "third": third}
    async with MeshTest(TOPOLOGY, agents=agents) as mesh:
        desk = Desk(mesh, worked)
        run = await mesh.publish("asked", {"id": "h1"})
        desk.run_id = run.id
        assert (await run.outcome(timeout_s=DEADLINE_S)).ending == "partial"
        yield desk


async def test_a_hop_that_is_redriven_again_and_again_never_takes_another_refusal_back(desk: Desk) -> None:
    for times in (1, 2, 3):
        assert await desk.redriven("second") == "partial"
        outcome = await desk.outcome()
        assert (outcome.raw["refused"], [found["agent"] for found in outcome.raw["refusals"]]) == (1, ["third"])
        assert (outcome.raw["generation"], desk.worked.count("second")) == (times, times)
    assert "third" not in desk.worked
    assert await desk.redriven("third") == "completed"
    assert ((await desk.outcome()).raw["refused"], desk.worked.count("third")) == (0, 1)
    report = (await verify(desk.mesh.log, desk.mesh.topology, SystemClock())).report
    assert (report.violations, report.checked["I15"]) == ([], 5)


async def test_a_plan_says_whether_a_redrive_takes_a_refusal_back(desk: Desk) -> None:
    (fresh,) = (await desk.dead.plan([await desk.letter("second")])).sendings
    await desk.redriven("second")
    (again,) = (await desk.dead.plan([await desk.letter("second")], RedriveOptions(again=True))).sendings
    assert [(sending.way, sending.once_more) for sending in (fresh, again)] == [("hop", False), ("hop", True)]
