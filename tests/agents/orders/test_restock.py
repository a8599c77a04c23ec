import asyncio

import pytest

from agents.orders.events import OrderRejected, reservation_key, sold_key
from agents.orders.inventory import check
from agents.orders.restock import restock
from mesh import Conflict
from mesh.adapters.sqlite.board import SqliteBoard
from tests.agents.conftest import ContextOf
from tests.agents.orders.placing import order, value

PLACED = order(("sku-001", 2), ("sku-002", 1))
REJECTED = OrderRejected(order_id="o-1", code="high_risk", reasons=[])


async def sold(board: SqliteBoard) -> list[int]:
    return [await value(board, sold_key(sku)) for sku in ("sku-001", "sku-002")]


async def test_a_rejected_order_gives_everything_back(board: SqliteBoard, context: ContextOf) -> None:
    await check(PLACED, context("stock"))
    await restock(REJECTED, context("restock"))
    assert await sold(board) == [0, 0]
    assert (await value(board, reservation_key("o-1")))["state"] == "released"


async def test_a_repeated_task_gives_back_once(board: SqliteBoard, context: ContextOf) -> None:
    await check(PLACED, context("stock"))
    await board.add(sold_key("sku-001"), 10)
    for _ in range(3):
        await restock(REJECTED, context("restock"))
    assert await sold(board) == [10, 0]


async def test_a_task_that_died_after_releasing_gives_back_the_rest(board: SqliteBoard, context: ContextOf) -> None:
    await check(PLACED, context("stock"))
    standing = await value(board, reservation_key("o-1"))
    dead = context("restock")
    await dead.board.put(reservation_key("o-1"), {**standing, "state": "released", "task": "restock"})
    await dead.board.add(sold_key("sku-001"), -2, value_min=0)
    await restock(REJECTED, context("restock"))
    assert await sold(board) == [0, 0]


async def test_two_tasks_at_once_release_once(board: SqliteBoard, context: ContextOf) -> None:
    await check(PLACED, context("stock"))
    await board.add(sold_key("sku-001"), 10)
    done = await asyncio.gather(*(restock(REJECTED, context(f"r{n}")) for n in range(4)), return_exceptions=True)
    assert all(d is None or isinstance(d, Conflict) for d in done)
    assert await sold(board) == [10, 0]


@pytest.mark.parametrize("reserved", [False, True])
async def test_a_run_without_the_reservation_gives_nothing_back(
    reserved: bool, board: SqliteBoard, context: ContextOf
) -> None:
    if reserved:
        await check(PLACED, context("stock", run_id="another"))
    before = await sold(board)
    await restock(REJECTED, context("restock"))
    assert await sold(board) == before
