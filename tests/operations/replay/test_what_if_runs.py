"""Replays over a real embedded log, compared with a fresh mesh that ran the same requests under the new limit."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from mesh import Emit, Payload
from mesh.core.replay.endings import UNKNOWN, WindowWhatIf
from mesh.core.topology.limit_words import with_limits
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology
from mesh.operations.dead_letters import DeadLetters, Selection
from mesh.operations.replay.what_if_runs import what_if_run, what_if_window
from mesh.operations.runs import Runs
from mesh.operations.verification import WHOLE, Window
from mesh.testing import MeshTest

TOPOLOGY = """
mesh: {name: t, prefix: mesh, inbox: {partitions: 2}, limits: {deadline: 60s, depth_max: 8}}
topics:
  asks: {ingress: ask, id: id}
  answers: {egress: answer}
agents:
  plan: {run: "t:plan", on: ask, emits: [half, dig], timeout: 20s}
  dig: {run: "t:dig", on: dig, emits: [dig, answer], timeout: 20s, visits_max: 20}
  price: {run: "t:price", on: half, emits: answer, timeout: 20s, retry: {attempts: 1}}
"""
DEADLINE_S = 40.0


class Ask(Payload, type="ask"):
    id: str
    deep: int
    fail: bool = False


class Half(Payload, type="half"):
    fail: bool


class Dig(Payload, type="dig"):
    left: int


async def plan(ask: Ask) -> list[Any]:
    return [Emit("half", {"fail": ask.fail}), Emit("dig", {"left": ask.deep})]


async def dig(dig: Dig) -> Emit:
    return Emit("dig", {"left": dig.left - 1}) if dig.left else Emit("answer", {"from": "dig"})


async def price(half: Half) -> Emit:
    if half.fail:
        raise ValueError("told to")
    return Emit("answer", {"from": "price"})


AGENTS: dict[str, Any] = {"plan": plan, "dig": dig, "price": price}
REQUESTS = [{"id": f"a{n}", "deep": n % 5, "fail": n % 3 == 2} for n in range(12)]


async def ran(topology: Topology, requests: list[dict[str, Any]] = REQUESTS) -> AsyncIterator[MeshTest]:
    async with MeshTest(topology, agents=AGENTS) as mesh:
        for run in [await mesh.publish("ask", payload) for payload in requests]:
            await run.outcome(timeout_s=DEADLINE_S)
        yield mesh


def limited(**limits: int) -> Topology:
    return with_limits(load(TOPOLOGY), limits)


@pytest.fixture
async def mesh() -> AsyncIterator[MeshTest]:
    async for mesh in ran(load(TOPOLOGY)):
        yield mesh


async def asked(mesh: MeshTest, window: Window = WHOLE, **limits: int) -> WindowWhatIf:
    return await what_if_window(mesh.log, mesh.topology, window, lambda recorded: with_limits(recorded, limits))


@pytest.mark.parametrize("depth_max", [1, 3, 5])
async def test_endings_counted_are_those_of_a_fresh_mesh_under_the_new_limit(mesh: MeshTest, depth_max: int) -> None:
    found = await asked(mesh, depth_max=depth_max)
    async for fresh in ran(limited(depth_max=depth_max)):
        rows = await Runs(fresh.log, fresh.topology).latest(limit=100)
        endings: dict[str, int] = {}
        for row in rows:
            endings[row.state] = endings.get(row.state, 0) + 1
        assert found.after.endings == endings
        assert found.after.tasks == sum(row.tasks for row in rows)
    assert found.before.runs == found.after.runs == len(REQUESTS)
    assert (found.unknown, found.open, found.outside) == (0, 0, 0)
    assert found.different > 0


async def test_nothing_differs_under_the_recorded_topology(mesh: MeshTest) -> None:
    found = await asked(mesh)
    assert (found.same, found.different) == (len(REQUESTS), 0)
    assert found.before == found.after


async def test_a_window_holds_the_runs_requested_in_it_whole(mesh: MeshTest) -> None:
    now_ms = mesh.log.now_ms()
    later = await asked(mesh, Window(now_ms + 1_000, None))
    assert (later.before.runs, later.outside) == (0, 0)
    none = await asked(mesh, Window(None, now_ms - 3_600_000))
    assert none.before.runs == 0
    whole = await asked(mesh, Window(now_ms - 3_600_000, now_ms + 1_000))
    assert whole.same == len(REQUESTS)


async def test_progress_reaches_the_total(mesh: MeshTest) -> None:
    seen: list[tuple[int, int]] = []
    await what_if_window(mesh.log, mesh.topology, WHOLE, lambda t: t, read=lambda n, total: seen.append((n, total)))
    assert seen[-1][0] == seen[-1][1] > 0


async def test_one_run_is_compared_task_by_task(mesh: MeshTest) -> None:
    compared = await what_if_run(mesh.log, mesh.topology, "a4", lambda t: with_limits(t, {"depth_max": 3}))
    assert compared.found is not None
    assert compared.found.before is not None
    assert (compared.found.before.ending, compared.found.after.ending) == ("completed", "partial")
    same = [compared.history.tasks[id].agent for id in compared.matches.recorded_of]
    assert sorted(same) == ["dig", "dig", "plan", "price"]
    assert len(compared.replay.history.tasks) == 7
    assert [refusal.code for refusal in compared.history.refusals] == ["depth"]


async def test_an_agent_that_was_not_asked_is_unknown() -> None:
    low = limited(depth_max=2)
    async for mesh in ran(low, REQUESTS[4:5]):
        compared = await what_if_run(mesh.log, mesh.topology, "a4", lambda _: load(TOPOLOGY))
        assert compared.found is not None
        assert (compared.found.after.ending, compared.found.asked) == (UNKNOWN, ("dig",))
        new = [task.agent for id, task in compared.history.tasks.items() if id not in compared.matches.recorded_of]
        assert new == ["dig"]


async def test_another_topology_may_lack_the_type_of_the_request(mesh: MeshTest) -> None:
    other = load(TOPOLOGY)
    without = replace(other, ingress={}, rows={})
    compared = await what_if_run(mesh.log, mesh.topology, "a0", lambda _: without)
    assert compared.found is not None
    assert compared.found.after.ending == "stopped"
    assert compared.found.reason.startswith("unknown_type of the request (new)")


@pytest.mark.parametrize(("limits", "after"), [({"depth_max": 4}, "completed"), ({"depth_max": 1}, "stopped")])
async def test_a_run_that_was_redriven_is_compared_by_its_last_ending(limits: dict[str, int], after: str) -> None:
    broken = True

    async def once(half: Half) -> Emit:
        return await price(Half(fail=broken))

    async with MeshTest(load(TOPOLOGY), agents={**AGENTS, "price": once}) as mesh:
        run = await mesh.publish("ask", {"id": "again", "deep": 0})
        assert (await run.outcome(timeout_s=DEADLINE_S)).ending == "failed"
        broken, dead = False, DeadLetters(mesh.log, mesh.topology)
        report = await dead.redrive(await dead.plan(await dead.select(Selection())))
        await dead.wait(report, timeout_s=DEADLINE_S)
        compared = await what_if_run(mesh.log, mesh.topology, "again", lambda t: with_limits(t, limits))
    assert compared.found is not None
    assert compared.found.before is not None
    assert (compared.found.before.ending, compared.found.after.ending) == ("completed", after)
    assert compared.found.differs == (after != "completed")
