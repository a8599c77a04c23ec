"""The issues example app: GitHub webhooks in; triage, spam check, look-alikes, review, routing, replies, a digest out.

    github.webhook ─┬─ triage ─┬─ issue.triaged ─┬─ spam ──────── issue.screened ─┐
                    │          │                 └─ duplicates ── issue.compared ─┴─ router ── issue.routed ─ reply
                    │          └─ pr.triaged ────┬─ spam ──────── pr.screened ────┐        (reply.drafted)
                    │                            └─ reviewer ──── pr.reviewed ────┴─ pr_router ── pr.routed
                    └─ observer ── event.noted                       (either router: needs.human)

`digest` consumes the results of each run and keeps the day's counts and lines on the board. No agent asks a model, a
clock or a random generator: an outcome is a function of the webhook alone, whatever came before it, on either log.
"""
