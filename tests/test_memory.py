"""Runs that ended leave no reference cycles: their payloads are freed at once, not at the collector's next pass."""

import asyncio
import gc
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mesh import Context, Emit, RetryLater
from mesh.testing import MeshTest

TOPOLOGY = """
mesh: {name: t, inbox: {partitions: 2}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents:
  echo:
    run: "no.such:function"
    on: ask
    emits: answer
    timeout: 40ms
    retry: {attempts: 2, first: 10ms, max: 10ms}
"""
RUNS = 20


async def answers(ask: dict[str, Any]) -> Emit:
    return Emit("answer", {"n": ask["n"]})


def answers_in_a_thread(ask: dict[str, Any]) -> Emit:
    return Emit("answer", {"n": ask["n"]})


async def uses_the_board(ask: dict[str, Any], ctx: Context) -> Emit:
    await ctx.board.add("count")
    await ctx.board.put("last", {"n": ask["n"]})
    return Emit("answer", {"n": ask["n"]})


async def fails(ask: dict[str, Any]) -> Emit:
    raise ValueError(ask["n"])


def fails_in_a_thread(ask: dict[str, Any]) -> Emit:
    raise ValueError(ask["n"])


async def exceeds_its_timeout(ask: dict[str, Any]) -> Emit:
    await asyncio.get_running_loop().create_future()
    return Emit("answer", {})


async def asks_for_a_later_attempt(ask: dict[str, Any], ctx: Context) -> Emit | RetryLater:
    if await ctx.board.get(f"seen/{ask['n']}") is None:
        await ctx.board.put(f"seen/{ask['n']}", True)
        return RetryLater(0.01)
    return Emit("answer", {"n": ask["n"]})


@pytest.mark.parametrize(
    "function",
    [
        answers,
        answers_in_a_thread,
        uses_the_board,
        fails,
        fails_in_a_thread,
        exceeds_its_timeout,
        asks_for_a_later_attempt,
    ],
    ids=lambda function: function.__name__,
)
async def test_ended_runs_leave_no_cycles(function: Callable[..., Any]) -> None:
    async with MeshTest(TOPOLOGY, agents={"echo": function}) as mesh:

        async def run_some(first: int) -> None:
            for n in range(first, first + RUNS):
                run = await mesh.publish("ask", {"n": n, "pad": "x" * 5_000})
                await run.outcome(timeout_s=20)

        await run_some(0)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            await run_some(RUNS)
            gc.collect()
            kept = Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert {name: count for name, count in kept.items() if count >= RUNS} == {}


async def test_ended_runs_leave_no_timers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.services.orchestrator.SWEEP_EVERY_MS", 10)
    async with MeshTest(TOPOLOGY, agents={"echo": answers}) as mesh:
        orchestrator = mesh.process.orchestrator
        assert orchestrator is not None
        for n in range(RUNS):
            await (await mesh.publish("ask", {"n": n})).outcome(timeout_s=20)
        async with asyncio.timeout(20):
            while any(len(timers) for timers in orchestrator._timers.values()):  # noqa: ASYNC110  # it sets no event
                await asyncio.sleep(0.01)
