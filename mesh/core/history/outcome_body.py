"""Read the body of an outcome: JSON → refusals, failures, results. Missing fields take their defaults. Pure."""

from datetime import datetime
from typing import Any

import orjson

from mesh.core.protocol.event import Usage
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Failure, Result, Unrouted


def refusal_of(found: dict[str, Any]) -> Refusal:
    """Read a refusal."""
    path = tuple(str(agent) for agent in found.get("path", ()))
    texts = [str(found.get(name, "")) for name in ("code", "agent", "message")]
    return Refusal(texts[0], texts[1], path, int(found.get("limit", 0)), int(found.get("actual", 0)), texts[2])


def failure_of(found: dict[str, Any]) -> Failure:
    """Read a failure."""
    agent, task_id, code, message = (str(found.get(name, "")) for name in ("agent", "task_id", "code", "message"))
    path = tuple(str(agent) for agent in found.get("path", ()))
    return Failure(agent, task_id, int(found.get("attempts", 1)), code, message, path)


def unrouted_of(found: dict[str, Any]) -> Unrouted:
    """Read an unrouted event."""
    type, agent, message = (str(found.get(name, "")) for name in ("type", "agent", "message"))
    return Unrouted(type, agent, message, int(found.get("times", 1)))


def draft_of(found: dict[str, Any]) -> Result:
    """Read a draft as the result that it did not become; its id is that of the dead letter."""
    return result_of({**found, "id": found.get("letter", "")})


def result_of(found: dict[str, Any]) -> Result:
    """Read a result."""
    id, type, agent = (str(found.get(name, "")) for name in ("id", "type", "agent"))
    data = orjson.dumps(found["data"]) if "data" in found else str(found.get("text", found.get("omitted", ""))).encode()
    return Result(id, type, agent, data)


def used_of(found: dict[str, Any]) -> Usage:
    """Read the usage that a run was charged."""
    return Usage(round(float(found.get("usd", 0)) * 1_000_000), int(found.get("tokens", 0)))


def time_ms(text: str) -> int:
    """Convert RFC 3339 to milliseconds since the epoch."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000)
