import asyncio

import pytest

from agents.orders.events import reservation_key, sold_key
from agents.orders.inventory import QTY_MAX, STOCK_UNITS, check
from mesh.adapters.sqlite.board import SqliteBoard
from tests.agents.conftest import ContextOf
from tests.agents.orders.placing import order, value

PLACED = order(("sku-001", 2), ("sku-002", 1))


async def test_an_order_is_reserved(board: SqliteBoard, context: ContextOf) -> None:
    assert (await check(PLACED, context())).ok
    assert await value(board, reservation_key("o-1")) == {
        "run": "run-1",
        "state": "held",
        "lines": {"sku-001": 2, "sku-002": 1},
    }
    assert await value(board, sold_key("sku-001")) == 2


async def test_a_repeated_task_finds_its_own_reservation(board: SqliteBoard, context: ContextOf) -> None:
    first = await check(PLACED, context())
    before = await board.get(reservation_key("o-1"))
    assert await check(PLACED, context()) == first
    assert await board.get(reservation_key("o-1")) == before
    assert await value(board, sold_key("sku-001")) == 2


async def test_a_task_that_died_between_its_writes_takes_nothing_twice(board: SqliteBoard, context: ContextOf) -> None:
    await context().board.add(sold_key("sku-001"), 2, value_max=STOCK_UNITS)  # as far as the first attempt came
    assert (await check(PLACED, context())).ok
    assert await value(board, sold_key("sku-001")) == 2


async def test_the_same_order_in_another_run_is_refused_and_takes_nothing(
    board: SqliteBoard, context: ContextOf
) -> None:
    await check(PLACED, context("a", run_id="run-1"))
    for _ in range(2):
        again = await check(PLACED, context("b", run_id="run-2"))
        assert (again.ok, again.problems) == (False, ["this order was placed before"])
        assert await value(board, sold_key("sku-001")) == 2
    assert (await value(board, reservation_key("o-1")))["run"] == "run-1"


async def test_stock_is_never_oversold(board: SqliteBoard, context: ContextOf) -> None:
    await board.add(sold_key("sku-001"), STOCK_UNITS - 5)
    orders = [order(("sku-001", 2), order_id=f"o-{n}") for n in range(4)]
    answers = await asyncio.gather(*(check(o, context(o.order_id, run_id=o.order_id)) for o in orders))
    assert sorted(a.ok for a in answers) == [False, False, True, True]
    assert await value(board, sold_key("sku-001")) == STOCK_UNITS - 1
    assert next(a.problems for a in answers if not a.ok) == ["sku-001: fewer than 2 left"]


async def test_what_could_be_taken_of_a_short_order_stays_held(board: SqliteBoard, context: ContextOf) -> None:
    await board.add(sold_key("sku-002"), STOCK_UNITS)
    assert not (await check(PLACED, context())).ok
    assert (await value(board, reservation_key("o-1")))["lines"] == {"sku-001": 2}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "nothing was ordered"),
        ([("sku-404", 1)], "sku-404: not in the catalogue"),
        ([("", 1)], "a line without sku: not in the catalogue"),
        ([("sku-001", 0)], f"sku-001: quantity 0 is not in 1..{QTY_MAX}"),
        ([("sku-001", -4)], f"sku-001: quantity -4 is not in 1..{QTY_MAX}"),
        ([("sku-001", QTY_MAX + 1)], f"sku-001: quantity {QTY_MAX + 1} is not in 1..{QTY_MAX}"),
    ],
)
async def test_what_cannot_be_reserved_touches_nothing(
    lines: list[tuple[str, int]], problem: str, board: SqliteBoard, context: ContextOf
) -> None:
    answer = await check(order(*lines), context())
    assert (answer.ok, answer.problems) == (False, [problem])
    assert await board.keys() == []
