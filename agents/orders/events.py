"""Payloads of the orders example app. Its agents share no other file.

Money is in whole cents of euros, weights in grams; scores lie in 0..1.
"""

from typing import NamedTuple

from pydantic import Field

from mesh import Payload

ORDER_ID = r"^[A-Za-z0-9._:-]{1,128}$"


class Product(NamedTuple):
    """One thing that we sell."""

    price_cents: int
    weight_g: int


CATALOGUE = {
    f"sku-{n:03d}": Product(price_cents=295 + n * 137 % 9_700, weight_g=40 + n * 71 % 2_400) for n in range(100)
}
"""`sku-000` to `sku-099`. A shop would read this from its own system; a constant keeps the example alone."""


class Line(Payload):
    """One line of an order. Bad values are not refused here: they make a rejected order."""

    sku: str = Field(max_length=64)
    qty: int = Field(default=1, ge=-(10**9), le=10**9)


class OrderPlaced(Payload, type="order.placed"):
    """An order as a shop sends it. Only the id and the lines must be there."""

    order_id: str = Field(pattern=ORDER_ID)
    lines: list[Line] = Field(max_length=200)
    customer: str = Field(default="", max_length=200)
    email: str = Field(default="", max_length=320)
    country: str = Field(default="", max_length=60)
    """Country of delivery, ISO 3166 alpha-2."""
    billing_country: str = Field(default="", max_length=60)
    payment: str = Field(default="", max_length=40)
    placed_at: str = Field(default="", max_length=40)

    @property
    def quantities(self) -> dict[str, int]:
        """SKU → ordered units; lines of the same SKU are one, in the order of first mention."""
        total: dict[str, int] = {}
        for line in self.lines:
            total[line.sku] = total.get(line.sku, 0) + line.qty
        return total


class StockChecked(Payload, type="stock.checked"):
    """Inventory's answer. `ok`: everything is reserved; else `problems` says what is not."""

    order_id: str
    ok: bool
    problems: list[str]


class OrderPriced(Payload, type="order.priced"):
    """Pricing's answer. `ok`: the order can be sold; else `problems` says why not."""

    order_id: str
    ok: bool
    problems: list[str]
    country: str
    goods_cents: int
    discount_cents: int
    shipping_cents: int
    tax_cents: int
    """Contained in the total."""
    total_cents: int
    currency: str
    weight_g: int


class FraudScored(Payload, type="fraud.scored"):
    """Fraud's answer: 0 is harmless. From 0.7 the order is refused."""

    order_id: str
    score: float
    signals: list[str]


class OrderFulfilled(Payload, type="order.fulfilled"):
    """The order goes out."""

    order_id: str
    total_cents: int
    tax_cents: int
    currency: str
    carrier: str
    parcels: int
    delivery_days: int


class OrderRejected(Payload, type="order.rejected"):
    """The order does not go out. `code`: out_of_stock, not_sellable or high_risk."""

    order_id: str
    code: str
    reasons: list[str]


def reservation_key(order_id: str) -> str:
    """Return the board key of an order's reservation: `{run, state: held|shipped|released, lines: {sku: qty}}`."""
    return f"orders/reservations/{order_id}"


def sold_key(sku: str) -> str:
    """Return the board key of the counter of units of a SKU that are sold or reserved."""
    return f"orders/sold/{sku}"
