from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.orders.fraud import WEIGHTS, score
from tests.agents.orders.placing import order


async def test_an_everyday_order_is_harmless() -> None:
    assert (await score(order(("sku-001", 1)))).score == 0.0


@pytest.mark.parametrize(
    ("fields", "signal"),
    [
        ({"email": ""}, "no address"),
        ({"email": "x@mailinator.com"}, "throwaway address"),
        ({"email": "x@FRAUD.example"}, "address says fraud"),
        ({"billing_country": "US"}, "billed elsewhere"),
        ({"payment": "Gift_Card"}, "risky payment"),
        ({"customer": "4711 0815"}, "name of digits"),
        ({"placed_at": "2024-05-06T03:12:00+02:00"}, "small hours"),
    ],
)
async def test_every_signal_of_the_buyer_is_named(fields: dict[str, Any], signal: str) -> None:
    found = await score(order(("sku-001", 1), **fields))
    assert found.signals == [signal]
    assert found.score == WEIGHTS[signal]


async def test_value_and_amount_weigh() -> None:
    high, very_high = await score(order(("sku-050", 60))), await score(order(("sku-050", 900)))
    assert high.signals == ["high value"]
    assert very_high.signals == ["many of one", "very high value"]


async def test_a_missing_country_is_not_billed_elsewhere() -> None:
    assert (await score(order(("sku-001", 1), country="", billing_country="DE"))).signals == []


@settings(deadline=None)
@given(
    email=st.text(max_size=30),
    customer=st.text(max_size=30),
    country=st.text(max_size=5),
    placed_at=st.text(max_size=30),
    qty=st.integers(-(10**9), 10**9),
)
async def test_every_order_gets_a_score_from_zero_to_one(qty: int, **fields: str) -> None:
    found = await score(order(("sku-001", qty), ("no such", 1), **fields))
    assert 0.0 <= found.score <= 1.0
