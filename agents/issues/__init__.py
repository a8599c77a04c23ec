"""The issue desk: GitHub webhooks in; triage, spam check, look-alikes, review, routing, reply drafts and a digest out.

    github.webhook ─┬─ triage ─┬─ issue.triaged ─┬─ spam ──────── issue.screened ─┐
                    │          │                 └─ duplicates ── issue.compared ─┴─ router ── issue.routed ─ reply
                    │          └─ pr.triaged ────┬─ spam ──────── pr.screened ────┐        (reply.drafted)
                    │                            └─ reviewer ──── pr.reviewed ────┴─ pr_router ── pr.routed
                    └─ observer ── event.noted                       (either router: needs.human)

`digest` hears what each run ended with and keeps the day's count and lines on the board. Nothing here asks a model,
a clock or a die: an outcome is a function of the webhook alone, whatever came before it and on whichever log.
"""
