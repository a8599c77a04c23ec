"""Common parts of the commands that stop, pause and resume: the user, and whether the orchestrator consumed them."""

import asyncio
import getpass
import socket
import time
from typing import TYPE_CHECKING, Final

from mesh.cli.framework.output import Piece
from mesh.cli.framework.text import ago
from mesh.core.protocol.event import rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mesh.adapters.ports import Appended, Log
    from mesh.cli.framework.output import Output
    from mesh.core.metrics.alerts import AlertFact
    from mesh.core.run.control import Switch
    from mesh.core.topology.model import Topology

POLL_S: Final = 0.02
CONSUMED_WITHIN_S: Final = 3.0
"""The time that a command waits for the orchestrator to consume its record."""
NOT_CONSUMED: Final = "no orchestrator has read it yet: is `mesh up` running?"


def user_name() -> str:
    """Return the name of the user who typed this command; `unknown` if this machine does not know the user id."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # as in many containers
        return "unknown"


def current_user() -> str:
    """Return user and machine: `ann@desk`."""
    return f"{user_name()}@{socket.gethostname()}"


async def wait_until_consumed(
    log: "Log", topology: "Topology", record: "Appended", *, within_s: float = CONSUMED_WITHIN_S
) -> bool:
    """Return whether an orchestrator has folded a record of mesh.inbox and all its effects are durable."""
    until = time.monotonic() + within_s
    while True:
        commits = await log.committed(topology.group("orchestrator"), topology.inbox)
        commit = commits.get(record.partition)
        if commit is not None and commit.offset > record.offset:
            return True
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(POLL_S)


def show_alerts(output: "Output", alerts: "Mapping[str, AlertFact]") -> None:
    """Print the alerts that stand, each in one line."""
    for fact in alerts.values():
        said = {"alert": fact.name, "scope": fact.scope, "why": fact.why, "at": rfc3339(fact.at_ms)}
        output.emit({**said, "stops": fact.stops})
        name = fact.scope.replace(":", " ")
        output.print((f"alert {fact.name}  ", "red"), name, (f" {ago(fact.at_ms)}: ", "dim"), fact.why)


def describe_stop(stop: "Switch") -> list[Piece]:
    """Describe a stop in one line: the stopped part, its age, its author and the reason."""
    pieces: list[Piece] = [stopped_name(stop), (f" stopped {ago(stop.at_ms)} by ", "dim"), stop.by or "unknown"]
    return [*pieces, (f": {stop.why}", "dim")] if stop.why else pieces


def stopped_name(stop: "Switch") -> str:
    """Return the name of the stopped part: `agent pricing`, `all agents`."""
    return "all agents" if stop.agent == "*" else f"agent {stop.agent}"


def resume_command(stop: "Switch") -> str:
    """Return the command that lifts a stop."""
    return "mesh resume all" if stop.agent == "*" else f"mesh resume agent {stop.agent}"
