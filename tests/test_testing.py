"""The test kit that users get."""

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from mesh import Context, Emit
from mesh.testing import MeshTest

TOPOLOGY = """
mesh: {name: t, prefix: mesh, inbox: {partitions: 2}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents: {echo: {run: "no.such:function", on: ask, emits: answer, retry: {attempts: 1}}}
"""


async def double(ask: dict[str, Any]) -> Emit:
    return Emit("answer", {"n": ask["n"] * 2})


async def test_three_lines_are_a_test() -> None:
    async with MeshTest(TOPOLOGY, agents={"echo": double}) as mesh:
        run = await mesh.publish("ask", {"n": 21})
        assert (await run.outcome(timeout_s=10)).results[0].data == {"n": 42}


async def test_the_projects_own_topology_is_taken_by_path() -> None:
    async with MeshTest("topics.yaml") as mesh:
        run = await mesh.publish("order.placed", {"order_id": "o-1", "lines": [{"sku": "sku-001", "qty": 1}]})
        outcome = await run.outcome(timeout_s=20)
        assert outcome.ending == "completed"
        assert await mesh.board.get("orders/reservations/o-1") is not None


async def test_two_at_once_do_not_meet() -> None:
    async with MeshTest(TOPOLOGY, agents={"echo": double}) as one, MeshTest(TOPOLOGY, agents={"echo": double}) as two:
        await one.board.put("k", b"1")
        assert await two.board.get("k") is None


async def test_a_replaced_agent_that_does_not_exist_is_refused() -> None:
    with pytest.raises(KeyError, match="echoo"):
        MeshTest(TOPOLOGY, agents={"echoo": double, "echo": double})


async def test_an_agent_that_does_not_end_holds_the_end_up_for_a_moment_only() -> None:
    begun = asyncio.Event()

    async def stuck(ask: dict[str, Any]) -> Emit:
        begun.set()
        await asyncio.Event().wait()
        return Emit("answer", ask)

    mesh = MeshTest(TOPOLOGY, agents={"echo": stuck})
    async with mesh:
        await mesh.publish("ask", {"n": 21})
        async with asyncio.timeout(10):
            await begun.wait()
        ending = time.monotonic()
    assert time.monotonic() - ending < 8


async def test_two_folders_with_agents_modules_of_the_same_name_do_not_meet(tmp_path: Path) -> None:
    said = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "topics.yaml").write_text(TOPOLOGY.replace("no.such:function", "my_twin:echo"))
        (folder / "my_twin.py").write_text(
            f'from mesh import Emit\nasync def echo(ask: dict) -> Emit:\n    return Emit("answer", "{name}")\n'
        )
        async with MeshTest(str(folder / "topics.yaml")) as mesh:
            outcome = await (await mesh.publish("ask", {})).outcome(timeout_s=10)
            said.append(outcome.results[0].data)
    assert said == ["first", "second"]


async def test_a_blocking_agent_uses_the_board_in_a_loop_of_its_own() -> None:
    def counting(ask: dict[str, Any], ctx: Context) -> Emit:
        n = asyncio.run(ctx.board.add("n")).value
        asyncio.run(ctx.board.update("all", lambda before: [*before, n], default=[]))
        return Emit("answer", n)

    async with MeshTest(TOPOLOGY, agents={"echo": counting}) as mesh:
        runs = [await mesh.publish("ask", {}) for _ in range(40)]
        said = [(await run.outcome(timeout_s=20)).results[0].data for run in runs]
        kept = await mesh.board.get("all")
    assert sorted(said) == list(range(1, 41))
    assert kept is not None
    assert sorted(orjson.loads(kept.value)) == sorted(said)
