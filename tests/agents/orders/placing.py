"""Orders for tests, as small as the test allows."""

from typing import Any

import orjson

from agents.orders.events import Line, OrderPlaced
from mesh.adapters.ports import Board


def order(*lines: tuple[str, int], order_id: str = "o-1", **fields: Any) -> OrderPlaced:
    """Return an order of (sku, qty) lines; by default without signs of fraud, from Germany."""
    fields = {"customer": "Ada", "email": "ada@example.org", "country": "DE", **fields}
    return OrderPlaced(order_id=order_id, lines=[Line(sku=sku, qty=qty) for sku, qty in lines], **fields)


async def value(board: Board, key: str) -> Any:
    """The parsed value on the board, or None."""
    entry = await board.get(key)
    return None if entry is None else orjson.loads(entry.value)
