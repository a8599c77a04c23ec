"""Example agents that do real work: the issues example app for GitHub webhooks and the orders example app.

One agent is one file with one decorated function. It imports `mesh`, pydantic and the standard library, and from its
own app only `events.py`, which holds the payload types that its agents exchange. Agents never import agents:
`topics.yaml` is all the wiring there is. `agents/README.md` shows how to write your own.
"""
