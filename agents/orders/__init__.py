"""The orders example app: an order in; stock, price and risk at the same time; fulfilled or rejected out.

    order.placed ─┬─ inventory ── stock.checked ─┐
                  ├─ pricing ──── order.priced ──┼─ fulfilment (risk < 0.7) ─┬─ order.fulfilled
                  └─ fraud ────── fraud.scored ──┴─ refusal   (risk ≥ 0.7) ──┴─ order.rejected ── restock

The three always answer, also with "no": a refusal is an event, not a missing event. Both joins are therefore always
met, and exactly one of the two conditions holds. `restock` gives back what a rejected order had reserved.
"""
