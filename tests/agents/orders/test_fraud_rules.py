from agents.orders.events import CATALOGUE
from agents.orders.fraud_rules import PASSES, REFUSED, VALUE_CENTS_MAX, score
from tests.agents.orders.placing import order


async def test_an_order_of_little_value_passes() -> None:
    assert (await score(order(("sku-001", 1)))).score == PASSES


async def test_an_order_of_more_value_is_refused() -> None:
    many = VALUE_CENTS_MAX // CATALOGUE["sku-001"].price_cents + 1
    found = await score(order(("sku-001", many)))
    assert (found.score, found.signals) == (REFUSED, ["not looked into"])
