"""Inventory: reserves what an order asks for.

Units are taken from a counter for each SKU that never exceeds the stock. Adding commutes, so a thousand orders for the
same SKU do not wait for one another. The reservation is one board value for each order, written by compare-and-set only
if none exists. Fulfilment ships it, restock releases it, and only one run can have it.

A repeated task (its worker died) adds with the same operation ids, which the board recognises, and then finds its own
reservation. An order that another run has reserved already is refused; what this run took is given back.
"""

from mesh import Context, agent
from mesh.errors import Conflict

from .events import CATALOGUE, OrderPlaced, StockChecked, reservation_key, sold_key

STOCK_UNITS = 1_000_000
"""Stock of each SKU; a shop would read it from its own system."""
QTY_MAX = 10_000


@agent
async def check(order: OrderPlaced, ctx: Context) -> StockChecked:
    """Reserve all lines, or list what is missing. Units that were taken stay reserved until restock releases them."""
    wanted = order.quantities
    problems = [problem for sku, qty in wanted.items() if (problem := _refused(sku, qty))]
    if problems or not wanted:
        return StockChecked(order_id=order.order_id, ok=False, problems=problems or ["nothing was ordered"])
    taken: dict[str, int] = {}
    for sku, qty in wanted.items():
        if (await ctx.board.add(sold_key(sku), qty, value_max=STOCK_UNITS)).applied:
            taken[sku] = qty
        else:
            problems.append(f"{sku}: fewer than {qty} left")
    reservation = {"run": ctx.run_id, "state": "held", "lines": taken}
    try:
        await ctx.board.put(reservation_key(order.order_id), reservation, expect="")
    except Conflict:
        standing = await ctx.board.get(reservation_key(order.order_id))
        if standing is None or standing.value["run"] != ctx.run_id:
            for sku, qty in taken.items():
                await ctx.board.add(sold_key(sku), -qty, value_min=0)
            problems = ["this order was placed before"]
    return StockChecked(order_id=order.order_id, ok=not problems, problems=problems)


def _refused(sku: str, qty: int) -> str:
    """Why this line cannot be reserved whatever the stock; '' if it can."""
    if sku not in CATALOGUE:
        return f"{sku or 'a line without sku'}: not in the catalogue"
    return "" if 0 < qty <= QTY_MAX else f"{sku}: quantity {qty} is not in 1..{QTY_MAX}"
