"""Fraud rules: the risk of an order while `fraud` is not available, by one rule that the answer names.

It stands in for `fraud` (`fallback` in topics.yaml): an order of little value passes, any other is refused until a
person has looked at it.
"""

from mesh import agent

from .events import CATALOGUE, FraudScored, OrderPlaced

VALUE_CENTS_MAX = 10_000
PASSES, REFUSED = 0.5, 1.0


@agent
async def score(order: OrderPlaced) -> FraudScored:
    """Weigh one order by its value alone."""
    value = sum(CATALOGUE[sku].price_cents * qty for sku, qty in order.quantities.items() if sku in CATALOGUE)
    passes = value <= VALUE_CENTS_MAX
    return FraudScored(order_id=order.order_id, score=PASSES if passes else REFUSED, signals=["not looked into"])
