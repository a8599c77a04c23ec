"""Replays of runs that had trouble: cancelled, redriven, opened under an older topology, written to meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from mesh import Emit, Payload
from mesh.adapters.clock import SystemClock
from mesh.core.topology.limit_words import with_limits
from mesh.core.topology.loader import load
from mesh.operations.replay.run_replay import replay_run
from mesh.operations.replay.what_if_runs import what_if_run, what_if_window
from mesh.operations.verification import WHOLE, verify
from mesh.testing import MeshTest
from tests.operations.test_runs import TOPOLOGY

DEADLINE_S = 30.0
release = asyncio.Event()


class Ask(Payload, type="ask"):
    id: str
    wait: bool = False


async def first(ask: Ask) -> Emit:
    if ask.wait:
        await release.wait()
    return Emit("half", {"id": ask.id})


class Half(Payload, type="half"):
    id: str


async def second(half: Half) -> Emit:
    return Emit("answer", {"id": half.id})


AGENTS: dict[str, Any] = {"first": first, "second": second}


@pytest.fixture
async def mesh() -> AsyncIterator[MeshTest]:
    global release
    release = asyncio.Event()
    async with MeshTest(TOPOLOGY, agents=AGENTS) as mesh:
        yield mesh


async def test_a_cancelled_run_says_so_and_ends_so_under_other_limits(mesh: MeshTest) -> None:
    run = await mesh.publish("ask", {"id": "a", "wait": True})
    await mesh.client.cancel(run.id)
    await run.outcome(timeout_s=DEADLINE_S)
    found = await replay_run(mesh.log, mesh.topology, "a")
    assert [gap.kind for gap in found.gaps] == ["cancelled"]
    (step,) = (step for step in found.steps if step.kind == "cancelled")
    assert step.after is not None
    assert step.after.ending == "cancelled"
    compared = await what_if_run(mesh.log, mesh.topology, "a", lambda t: with_limits(t, {"depth_max": 1}))
    assert compared.found is not None
    assert (compared.found.after.ending, compared.found.differs) == ("cancelled", False)


async def test_a_run_that_is_open_is_told_as_far_as_it_came(mesh: MeshTest) -> None:
    run = await mesh.publish("ask", {"id": "a", "wait": True})
    found = await replay_run(mesh.log, mesh.topology, "a")
    assert (found.history.state, [step.kind for step in found.steps]) == ("open", ["requested"])
    window = await what_if_window(mesh.log, mesh.topology, WHOLE, lambda t: t)
    assert (window.open, window.before.runs) == (1, 0)
    assert (await verify(mesh.log, mesh.topology, SystemClock())).first is None
    release.set()
    await run.outcome(timeout_s=DEADLINE_S)
    assert (await replay_run(mesh.log, mesh.topology, "a")).history.state == "completed"


async def test_a_run_is_decided_under_the_topology_that_it_was_opened_with(mesh: MeshTest) -> None:
    run = await mesh.publish("ask", {"id": "a"})
    await run.outcome(timeout_s=DEADLINE_S)
    now = load(TOPOLOGY.replace("on: half, emits: answer", 'on: half, emits: answer, when: id == "z"'))
    now = replace(now, prefix=mesh.topology.prefix)
    assert now.digest != mesh.topology.digest
    found = await replay_run(mesh.log, now, "a")
    assert [step.agent for step in found.steps] == ["", "first", "second"]
    topologies = {step.topology.digest for step in found.steps if step.topology is not None}
    assert topologies == {mesh.topology.digest}
    compared = await what_if_run(mesh.log, now, "a", lambda _: now)
    assert compared.found is not None
    assert (compared.found.after.ending, compared.found.after.tasks) == ("stopped", 1)
    assert compared.found.reason == "half unrouted (new)"
