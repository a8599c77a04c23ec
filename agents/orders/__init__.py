"""The order desk: an order in; stock, price and risk at the same time; fulfilled or rejected out.

    order.placed ─┬─ inventory ── stock.checked ─┐
                  ├─ pricing ──── order.priced ──┼─ fulfilment (risk < 0.7) ─┬─ order.fulfilled
                  └─ fraud ────── fraud.scored ──┴─ refusal   (risk ≥ 0.7) ──┴─ order.rejected ── restock

The three always answer, also with "no": a business answer is an event, never a missing one, so both joins are always
met and exactly one of the two conditions holds. `restock` gives back what a rejected order had reserved.
"""
