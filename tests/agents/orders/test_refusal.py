from agents.orders.events import FraudScored, OrderRejected, StockChecked
from agents.orders.pricing import price
from agents.orders.refusal import refuse
from tests.agents.orders.placing import order


async def test_an_order_of_high_risk_is_rejected_with_its_signals() -> None:
    rejected = await refuse(
        StockChecked(order_id="o-1", ok=True, problems=[]),
        await price(order(("sku-001", 1))),
        FraudScored(order_id="o-1", score=0.8, signals=["risky payment"]),
    )
    assert rejected == OrderRejected(order_id="o-1", code="high_risk", reasons=["risk 0.8", "risky payment"])
