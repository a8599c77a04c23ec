"""Fulfilment: ships what is in stock and can be sold, and rejects the rest. Consumes only orders of tolerable risk."""

from typing import Any

from mesh import Context, agent

from .events import (
    FraudScored,
    OrderFulfilled,
    OrderPriced,
    OrderRejected,
    StockChecked,
    reservation_key,
)

REASONS_MAX = 20
PARCEL_G_MAX = 31_500
CARRIERS = {"DE": ("DHL", 2), "AT": ("DHL", 3), "FR": ("Colissimo", 3), "NL": ("PostNL", 3), "US": ("UPS", 6)}
"""Country → (carrier, days)."""
OTHER_CARRIER = ("DPD", 5)


@agent
async def ship(
    stock: StockChecked, price: OrderPriced, risk: FraudScored, ctx: Context
) -> OrderFulfilled | OrderRejected:
    """Decide, and mark the reservation as shipped by compare-and-set. Repeating it changes nothing."""
    problems = list(dict.fromkeys([*stock.problems, *price.problems]))[:REASONS_MAX]
    if not stock.ok or not price.ok:
        code = "not_sellable" if not price.ok else "out_of_stock"
        return OrderRejected(order_id=stock.order_id, code=code, reasons=problems or ["refused without a reason"])
    await ctx.board.update(reservation_key(stock.order_id), _shipped, default={"run": ctx.run_id, "lines": {}})
    carrier, days = CARRIERS.get(price.country, OTHER_CARRIER)
    return OrderFulfilled(
        order_id=stock.order_id,
        total_cents=price.total_cents,
        tax_cents=price.tax_cents,
        currency=price.currency,
        carrier=carrier,
        parcels=max(1, -(-price.weight_g // PARCEL_G_MAX)),
        delivery_days=days,
    )


def _shipped(reservation: dict[str, Any]) -> dict[str, Any]:
    return {**reservation, "state": "shipped"}
