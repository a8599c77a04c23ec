"""The test kit that users get."""

import asyncio
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from mesh import Context, Emit, Payload
from mesh.core.errors import Conflict, InvalidInput
from mesh.testing import MemoryBoard, MeshTest, context, topology_of

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
        assert (await run.outcome(timeout_s=20)).results[0].data == {"n": 42}


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
            outcome = await (await mesh.publish("ask", {})).outcome(timeout_s=20)
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


class Placed(Payload, type="order.placed"):
    n: int


class Stock(Payload, type="stock.checked"):
    left: int


class Price(Payload, type="order.priced"):
    cents: int


class Shipped(Payload, type="order.shipped"):
    cents: int


async def check(order: Placed, ctx: Context) -> Stock:
    sold = await ctx.board.add("sold", order.n)
    return Stock(left=100 - sold.value)


async def price(order: Placed) -> Price:
    return Price(cents=order.n * 5)


async def ship(stock: Stock, price: Price) -> Shipped | None:
    return Shipped(cents=price.cents) if stock.left >= 0 else None


async def test_functions_alone_are_a_mesh_and_their_signatures_its_routes() -> None:
    async with MeshTest.of(check, price, ship, options={"price": {"timeout": "2s"}}) as mesh:
        outcome = await (await mesh.publish("order.placed", {"n": 3})).outcome(timeout_s=20)
    assert outcome.ending == "completed"
    assert [(result.type, result.data) for result in outcome.results] == [("order.shipped", {"cents": 15})]


def test_a_topology_from_signatures_has_joins_edges_and_what_options_add() -> None:
    made = topology_of([check, price, ship], options={"ship": {"when": "order.priced.cents < 9"}}, mesh={"name": "x"})
    assert made.name == "x"
    assert {name: (spec.on, spec.join, spec.emits) for name, spec in made.agents.items()} == {
        "check": (("order.placed",), False, ("stock.checked",)),
        "price": (("order.placed",), False, ("order.priced",)),
        "ship": (("stock.checked", "order.priced"), True, ("order.shipped",)),
    }
    assert made.agents["ship"].when is not None
    assert {rule.name for rule in made.topics.values()} == {"in.order.placed", "out.order.shipped"}


def test_signatures_that_name_no_types_are_refused_with_what_to_give() -> None:
    with pytest.raises(ValueError, match=r"options=\{'double': \{'on'"):
        topology_of([double])
    with pytest.raises(ValueError, match=r"options=\{'double': \{'emits'"):
        topology_of([double], options={"double": {"on": "ask"}})
    with pytest.raises(ValueError, match="no function"):
        topology_of([check], options={"chek": {}})
    assert topology_of([double], options={"double": {"on": "ask", "emits": "answer"}}).agents["double"].on == ("ask",)


async def test_one_function_is_tested_with_a_context_and_nothing_else() -> None:
    ctx = context(agent="check", task_id="t1")
    assert (await check(Placed(n=3), ctx)).left == 97
    found = await ctx.board.get("sold")
    assert found is not None
    assert (found.value, found.by) == (3, "check/t1")
    assert context(resources="pool").resources == "pool"


async def test_a_context_has_a_time_and_random_numbers_that_repeat() -> None:
    first, again = context(), context()
    assert (first.now_ms, first.sandbox) == (again.now_ms, False)
    assert first.random().random() == again.random().random() != context(task_id="t2").random().random()
    assert (context(now_ms=5).now_ms, context(sandbox=True).sandbox) == (5, True)


@pytest.mark.parametrize("blocking", [False, True])
async def test_every_attempt_of_a_task_has_the_same_time_and_random_numbers(blocking: bool) -> None:
    seen: list[tuple[int, float, bool]] = []

    def look(ctx: Context) -> Emit:
        seen.append((ctx.now_ms, ctx.random().random(), ctx.sandbox))
        if ctx.attempt < 3:
            raise OSError("try again")
        return Emit("answer", ctx.attempt)

    async def waiting(ask: dict[str, Any], ctx: Context) -> Emit:
        return look(ctx)

    def working(ask: dict[str, Any], ctx: Context) -> Emit:
        return look(ctx)

    before_ms = round(time.time() * 1000)
    topology = TOPOLOGY.replace("{attempts: 1}", "{attempts: 3, first: 30ms}")
    async with MeshTest(topology, agents={"echo": working if blocking else waiting}) as mesh:
        outcomes = [await (await mesh.publish("ask", {})).outcome(timeout_s=20) for _ in range(2)]
    assert [outcome.ending for outcome in outcomes] == ["completed"] * 2
    assert [seen[:3], seen[3:]] == [[seen[0]] * 3, [seen[3]] * 3]
    assert seen[0][1] != seen[3][1]
    assert before_ms <= seen[0][0] <= seen[3][0] <= round(time.time() * 1000)
    assert not seen[0][2]


async def test_a_repeated_task_counts_once_and_another_one_finds_what_the_first_left() -> None:
    board = MemoryBoard()
    for task_id, left in (("t1", 97), ("t1", 97), ("t2", 94)):
        assert (await check(Placed(n=3), context(board=board, task_id=task_id))).left == left
    ctx = context(board=board)
    assert await ctx.board.keys("s*") == ["sold"]
    assert [item.value for item in await ctx.board.history("sold")] == [6, 3]


async def test_the_board_in_memory_keeps_the_rules_of_every_store() -> None:
    ctx = context()
    written = await ctx.board.put("a", {"n": 1}, expect="")
    assert await ctx.board.get("a") == written
    with pytest.raises(Conflict):
        await ctx.board.put("a", 2, expect="")
    assert (await ctx.board.update("a", lambda value: {"n": value["n"] + 1})).value == {"n": 2}
    for n in range(4):
        await ctx.board.append("list", n, items_max=3)
    item = await ctx.board.get("list")
    assert item is not None
    assert item.value == [1, 2, 3]
    assert not (await ctx.board.add("n", 5, value_max=4)).applied
    for refused in (ctx.board.get("no key"), ctx.board.add("list"), ctx.board.append("n2", "x" * 70_000)):
        with pytest.raises(InvalidInput):
            await refused
