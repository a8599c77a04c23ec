"""A call of an agent does not see the context of another, in a lane, in a thread and in an isolated process."""

import asyncio
import decimal
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import orjson
import pytest

from mesh import Emit
from mesh.core.task.agent import describe
from mesh.core.topology.loader import load
from mesh.runtime.execution.isolation import ChildProcesses
from mesh.testing import MeshTest
from tests.runtime.execution.test_isolation import order, settings_in

TOPOLOGY = """
mesh: {name: t, inbox: {partitions: 2}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents: {echo: {run: "no.such:function", on: ask, emits: answer, retry: {attempts: 1}}}
"""
tenant: ContextVar[str] = ContextVar("tenant", default="")


def leave(ask: dict[str, Any]) -> Emit:
    found = {"tenant": tenant.get(), "third": str(decimal.Decimal(1) / 3)}
    tenant.set(f"tenant {ask.get('n')}")
    decimal.getcontext().prec = 3
    return Emit("answer", found)


async def leave_at_once(ask: dict[str, Any]) -> Emit:
    return leave(ask)


async def leave_and_wait(ask: dict[str, Any]) -> Emit:
    found = leave(ask)
    await asyncio.sleep(0)
    assert tenant.get() == f"tenant {ask.get('n')}"
    return found


SPEC = load(TOPOLOGY).agents["echo"]
CLEAN = {"tenant": "", "third": "0." + "3" * 28}


@pytest.mark.parametrize("function", [leave, leave_at_once, leave_and_wait])
async def test_no_call_finds_what_another_has_left(function: Callable[..., Any]) -> None:
    async with MeshTest(TOPOLOGY, agents={"echo": function}) as mesh:
        runs = [await mesh.publish("ask", {"n": n}) for n in range(50)]
        assert [(await run.outcome(timeout_s=20)).results[0].data for run in runs] == [CLEAN] * 50


@pytest.mark.parametrize("function", [leave, leave_and_wait])
async def test_nor_in_an_isolated_process(function: Callable[..., Any], tmp_path: Path) -> None:
    isolated_processes, where = ChildProcesses(settings_in(tmp_path)), describe(function).where
    async with asyncio.timeout(60):
        for _ in range(3):
            async with isolated_processes.acquire(where) as isolated_process:
                answer = await isolated_process.answer(order("x", where)._replace(spec=SPEC), None)
            assert orjson.loads(answer.data) == CLEAN, answer.fault
        await isolated_processes.close()
