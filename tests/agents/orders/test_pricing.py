from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.orders.events import CATALOGUE
from agents.orders.pricing import TAX_PERCENT, price
from tests.agents.orders.placing import order

PRICE, WEIGHT_G = CATALOGUE["sku-001"]


async def test_one_thing_at_home_costs_its_price_and_shipping() -> None:
    priced = await price(order(("sku-001", 1)))
    assert priced.ok
    assert (priced.goods_cents, priced.discount_cents, priced.shipping_cents) == (PRICE, 0, 490 + 120)
    assert priced.total_cents == PRICE + 610
    assert priced.tax_cents == round(priced.total_cents * 19 / 119)


async def test_many_of_one_thing_are_cheaper() -> None:
    priced = await price(order(("sku-001", 10), ("sku-002", 1)))
    assert priced.discount_cents == PRICE * 10 * 5 // 100


@pytest.mark.parametrize(
    ("country", "shipping_cents", "taxed"), [("DE", 0, True), ("FR", 0, True), ("US", 2_490 + 900 * 15, False)]
)
async def test_shipping_and_tax_follow_the_country(country: str, shipping_cents: int, taxed: bool) -> None:
    priced = await price(order(("sku-001", 130), country=country))
    assert WEIGHT_G * 130 in range(14_001, 15_001)
    assert (priced.shipping_cents, priced.tax_cents > 0) == (shipping_cents, taxed)


@pytest.mark.parametrize(
    ("lines", "fields", "problem"),
    [
        ([("sku-404", 1)], {}, "sku-404: cannot be priced"),
        ([("sku-001", -1)], {}, "sku-001: cannot be priced"),
        ([], {}, "nothing was ordered"),
        ([("sku-001", 1)], {"country": "Germany"}, "country is not ISO 3166 alpha-2"),
        ([("sku-001", 1)], {"country": "kp"}, "no deliveries to KP"),
    ],
)
async def test_what_cannot_be_sold_is_named(lines: list[tuple[str, int]], fields: dict[str, Any], problem: str) -> None:
    priced = await price(order(*lines, **fields))
    assert not priced.ok
    assert problem in priced.problems


async def test_an_order_without_a_country_goes_home() -> None:
    assert (await price(order(("sku-001", 1), country=" "))).country == "DE"


@settings(deadline=None)
@given(
    lines=st.lists(st.tuples(st.sampled_from(sorted(CATALOGUE)), st.integers(1, 10_000)), min_size=1, max_size=5),
    country=st.sampled_from([*TAX_PERCENT, "US", "JP"]),
)
async def test_the_parts_add_up_to_the_total(lines: list[tuple[str, int]], country: str) -> None:
    priced = await price(order(*lines, country=country))
    assert priced.total_cents == priced.goods_cents - priced.discount_cents + priced.shipping_cents
    assert 0 <= priced.tax_cents < priced.total_cents
    assert 0 <= priced.discount_cents < priced.goods_cents
