import pytest
from pydantic import ValidationError

from agents.orders.events import CATALOGUE, OrderPlaced, reservation_key, sold_key


def test_the_catalogue_is_large_enough_to_spread_contention() -> None:
    assert len(CATALOGUE) >= 50
    assert all(product.price_cents > 0 and product.weight_g > 0 for product in CATALOGUE.values())


def test_lines_of_one_sku_are_added_up() -> None:
    order = OrderPlaced.model_validate(
        {"order_id": "o", "lines": [{"sku": "b", "qty": 2}, {"sku": "a"}, {"sku": "b", "qty": 3}]}
    )
    assert list(order.quantities.items()) == [("b", 5), ("a", 1)]


@pytest.mark.parametrize("order_id", ["", "a/b", "x" * 129, "a b", "ü"])
def test_an_order_without_a_usable_id_is_refused(order_id: str) -> None:
    with pytest.raises(ValidationError):
        OrderPlaced(order_id=order_id, lines=[])


def test_keys_on_the_board_are_named_after_order_and_sku() -> None:
    assert reservation_key("o-1") == "orders/reservations/o-1"
    assert sold_key("sku-001") == "orders/sold/sku-001"
