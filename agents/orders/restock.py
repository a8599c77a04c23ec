"""Restock: gives back the units that a rejected order had reserved. It is compensation as an agent.

The reservation goes from held to released by compare-and-set, so only one task gives its units back. If that task is
repeated, it finds its own name there and adds with the same operation ids, which the board recognises.
"""

from mesh import Context, agent

from .events import OrderRejected, reservation_key, sold_key


@agent
async def restock(order: OrderRejected, ctx: Context) -> None:
    """Release this run's reservation, if it has one."""
    key = reservation_key(order.order_id)
    standing = await ctx.board.get(key)
    if standing is None or standing.value["run"] != ctx.run_id:
        return
    reservation = standing.value
    if reservation["state"] == "held":
        released = {**reservation, "state": "released", "task": ctx.task_id}
        await ctx.board.put(key, released, expect=standing.version)
    elif reservation.get("task") != ctx.task_id:
        return
    for sku, qty in reservation["lines"].items():
        await ctx.board.add(sold_key(sku), -qty, value_min=0)
