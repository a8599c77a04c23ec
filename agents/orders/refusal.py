"""Refusal: rejects orders of high risk. The other half of fulfilment's condition, so every order gets an answer."""

from mesh import agent

from .events import FraudScored, OrderPriced, OrderRejected, StockChecked


@agent
async def refuse(stock: StockChecked, price: OrderPriced, risk: FraudScored) -> OrderRejected:
    """Reject with the reason. Restock consumes the event and gives back the reserved units."""
    return OrderRejected(order_id=risk.order_id, code="high_risk", reasons=[f"risk {risk.score}", *risk.signals])
