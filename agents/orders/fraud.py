"""Fraud: how risky an order looks by itself. Rules with weights, named in the answer; the sum is capped at 1.

It looks only at the order, so the same order always gets the same score.
"""

import re
from collections.abc import Iterator
from datetime import datetime

from mesh import agent

from .events import CATALOGUE, FraudScored, OrderPlaced

WEIGHTS = {
    "throwaway address": 0.35,
    "no address": 0.1,
    "billed elsewhere": 0.25,
    "high value": 0.25,
    "very high value": 0.45,
    "many of one": 0.2,
    "risky payment": 0.2,
    "name of digits": 0.15,
    "small hours": 0.05,
    "address says fraud": 1.0,
}
VALUE_CENTS_HIGH, VALUE_CENTS_VERY_HIGH = 200_000, 1_000_000
UNITS_MANY = 100
NIGHT_HOURS = range(1, 5)
THROWAWAY = frozenset(
    {"mailinator.com", "10minutemail.com", "guerrillamail.com", "tempmail.com", "trashmail.com", "yopmail.com"}
)
BLOCKED_DOMAINS = frozenset({"fraud.example"})
RISKY_PAYMENTS = frozenset({"gift_card", "prepaid", "crypto"})
DIGITS = re.compile(r"\d{4,}")


@agent
async def score(order: OrderPlaced) -> FraudScored:
    """Weigh one order."""
    signals = sorted(_signals(order))
    return FraudScored(
        order_id=order.order_id, score=round(min(1.0, sum(WEIGHTS[signal] for signal in signals)), 2), signals=signals
    )


def _signals(order: OrderPlaced) -> Iterator[str]:
    domain = order.email.strip().lower().rpartition("@")[2]
    if not domain:
        yield "no address"
    elif domain in BLOCKED_DOMAINS:
        yield "address says fraud"
    elif domain in THROWAWAY:
        yield "throwaway address"
    countries = {order.country.strip().upper(), order.billing_country.strip().upper()} - {""}
    if len(countries) > 1:
        yield "billed elsewhere"
    value = sum(CATALOGUE[sku].price_cents * qty for sku, qty in order.quantities.items() if sku in CATALOGUE)
    if value >= VALUE_CENTS_HIGH:
        yield "very high value" if value >= VALUE_CENTS_VERY_HIGH else "high value"
    if any(qty >= UNITS_MANY for qty in order.quantities.values()):
        yield "many of one"
    if order.payment.strip().lower() in RISKY_PAYMENTS:
        yield "risky payment"
    if DIGITS.search(order.customer) and not re.search(r"[^\W\d_]", order.customer):
        yield "name of digits"
    if _hour(order.placed_at) in NIGHT_HOURS:
        yield "small hours"


def _hour(placed_at: str) -> int | None:
    """The hour at which the order was placed, as its sender's clock showed it."""
    try:
        return datetime.fromisoformat(placed_at).hour
    except ValueError:
        return None
