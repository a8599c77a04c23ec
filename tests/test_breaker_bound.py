"""A breaker counts for its agent: how many calls it lets through does not depend on the partitions of the inbox."""

import asyncio
from typing import Any

import pytest

from mesh import Emit
from mesh.testing import MeshTest

FAILURES, RUNS = 5, 120
MESH = """
mesh: {name: bound, inbox: {partitions: PARTITIONS}}
topics:
  asks: {ingress: ask}
  answers: {egress: answer}
agents:
  shaky:
    run: "no.such:function"
    on: ask
    emits: answer
    lanes: LANES
    retry: {attempts: 1}
    fallback: rules
    breaker: {failures: 5, open: OPEN}
  rules: {run: "no.such:function", emits: answer}
"""


def text(partitions: int, lanes: int, open: str) -> str:
    return MESH.replace("PARTITIONS", str(partitions)).replace("LANES", str(lanes)).replace("OPEN", open)


async def rules(ask: dict[str, Any]) -> Emit:
    return Emit("answer", ask)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("partitions", [6, 24])
async def test_an_agent_that_always_fails_is_called_as_often_as_declared(partitions: int, lanes: int) -> None:
    calls = 0

    async def shaky(ask: dict[str, Any]) -> Emit:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.002)
        raise RuntimeError("always")

    async with MeshTest(text(partitions, lanes, "60s"), agents={"shaky": shaky, "rules": rules}) as mesh:
        runs = await asyncio.gather(*(mesh.publish("ask", {"n": n}) for n in range(RUNS)))
        endings = [(await run.outcome(timeout_s=60)).ending for run in runs]
    assert endings == ["completed"] * RUNS
    assert FAILURES <= calls <= FAILURES + lanes - 1


async def test_when_the_time_is_over_one_call_in_all_partitions_tries_the_agent() -> None:
    calls: list[str] = []
    mended = asyncio.Event()

    async def shaky(ask: dict[str, Any]) -> Emit:
        calls.append("mended" if mended.is_set() else "broken")
        if not mended.is_set():
            raise RuntimeError("not yet")
        return Emit("answer", ask)

    async with MeshTest(text(24, 1, "300ms"), agents={"shaky": shaky, "rules": rules}) as mesh:
        loop = asyncio.get_running_loop()
        began_s, n = loop.time(), 0
        while loop.time() - began_s < 1.5:
            runs = [await mesh.publish("ask", {"n": n + i}) for i in range(24)]
            await asyncio.gather(*(run.outcome(timeout_s=20) for run in runs))
            n += 24
        periods = int((loop.time() - began_s) / 0.3) + 1
        assert FAILURES < len(calls) <= FAILURES + periods
        mended.set()
        async with asyncio.timeout(30):
            while "mended" not in calls:
                await (await mesh.publish("ask", {"n": n})).outcome(timeout_s=20)
                n += 1
