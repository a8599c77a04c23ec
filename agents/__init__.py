"""Example agents that do real work: an issue desk for GitHub webhooks and an order desk.

One agent is one file with one decorated function. It imports `mesh`, pydantic and the standard library, and from its
own desk only `events.py`, which holds the payload types that the desk's agents say to one another. Agents never
import agents: `topics.yaml` is all the wiring there is. `agents/README.md` shows how to write your own.
"""
