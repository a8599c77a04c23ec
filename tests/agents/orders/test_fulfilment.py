from typing import Any

import pytest

from agents.orders.events import FraudScored, OrderFulfilled, OrderRejected, StockChecked, reservation_key
from agents.orders.fulfilment import PARCEL_G_MAX, REASONS_MAX, ship
from agents.orders.inventory import check
from agents.orders.pricing import price
from mesh.adapters.sqlite.board import SqliteBoard
from tests.agents.conftest import ContextOf
from tests.agents.orders.placing import order, value

RISK = FraudScored(order_id="o-1", score=0.1, signals=[])


async def decide(context: ContextOf, *lines: tuple[str, int], **fields: Any) -> OrderFulfilled | OrderRejected:
    placed = order(*lines, **fields)
    return await ship(await check(placed, context("stock")), await price(placed), RISK, context("ship"))


async def test_a_good_order_is_shipped_and_its_reservation_says_so(board: SqliteBoard, context: ContextOf) -> None:
    shipped = await decide(context, ("sku-001", 2), country="FR")
    assert isinstance(shipped, OrderFulfilled)
    assert (shipped.carrier, shipped.parcels, shipped.currency) == ("Colissimo", 1, "EUR")
    assert (await value(board, reservation_key("o-1")))["state"] == "shipped"
    assert (await value(board, reservation_key("o-1")))["lines"] == {"sku-001": 2}


async def test_shipping_twice_gives_the_same_answer(board: SqliteBoard, context: ContextOf) -> None:
    assert await decide(context, ("sku-001", 2)) == await decide(context, ("sku-001", 2))


async def test_a_heavy_order_goes_in_several_parcels(context: ContextOf) -> None:
    shipped = await decide(context, ("sku-001", 600))
    assert isinstance(shipped, OrderFulfilled)
    assert shipped.parcels == -(-600 * 111 // PARCEL_G_MAX)


@pytest.mark.parametrize(
    ("lines", "fields", "code"),
    [
        ([("sku-404", 1)], {}, "not_sellable"),
        ([], {}, "not_sellable"),
        ([("sku-001", 1)], {"country": "KP"}, "not_sellable"),
    ],
)
async def test_what_cannot_be_sold_is_rejected_with_its_reasons(
    lines: list[tuple[str, int]], fields: dict[str, Any], code: str, context: ContextOf
) -> None:
    rejected = await decide(context, *lines, **fields)
    assert isinstance(rejected, OrderRejected)
    assert rejected.code == code
    assert rejected.reasons


async def test_what_is_not_in_stock_is_rejected(context: ContextOf) -> None:
    short = StockChecked(order_id="o-1", ok=False, problems=["sku-001: fewer than 1 left"])
    rejected = await ship(short, await price(order(("sku-001", 1))), RISK, context())
    assert rejected == OrderRejected(order_id="o-1", code="out_of_stock", reasons=["sku-001: fewer than 1 left"])


async def test_reasons_are_limited(context: ContextOf) -> None:
    rejected = await decide(context, *((f"no-{n}", 1) for n in range(200)))
    assert isinstance(rejected, OrderRejected)
    assert len(rejected.reasons) == REASONS_MAX
