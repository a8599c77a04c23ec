"""What commands share that tell the mesh to stop, to wait or to go on: who wants it, and whether it is heard."""

import asyncio
import getpass
import socket
import time
from typing import TYPE_CHECKING, Final

from mesh.cli.framework.screen import Piece
from mesh.cli.framework.text import ago

if TYPE_CHECKING:
    from mesh.adapters.ports import Appended, Log
    from mesh.core.run.control import Switch
    from mesh.core.topology.model import Topology

LOOK_EVERY_S: Final = 0.02
HEARD_WITHIN_S: Final = 3.0
"""For so long a command waits to see that somebody has heard it."""
NOBODY: Final = "nobody has read it yet: is `mesh up` running?"


def who() -> str:
    """Who types this: `ann@desk`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user on this machine, as in many containers
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


async def heard(log: "Log", topology: "Topology", place: "Appended", *, within_s: float = HEARD_WITHIN_S) -> bool:
    """Whether an orchestrator has folded a record of mesh.inbox and all that followed from it is durable."""
    until = time.monotonic() + within_s
    while True:
        commits = await log.committed(topology.group("orchestrator"), topology.inbox)
        commit = commits.get(place.partition)
        if commit is not None and commit.offset > place.offset:
            return True
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(LOOK_EVERY_S)


def described(stop: "Switch") -> list[Piece]:
    """A stop for people: since when, by whom, why."""
    pieces: list[Piece] = [named(stop), (f" stopped {ago(stop.at_ms)} by ", "dim"), stop.by or "somebody"]
    return [*pieces, (f": {stop.why}", "dim")] if stop.why else pieces


def named(stop: "Switch") -> str:
    """What is stopped: `agent pricing`, `all agents`."""
    return "all agents" if stop.agent == "*" else f"agent {stop.agent}"


def resume_command(stop: "Switch") -> str:
    """The command that lifts a stop."""
    return "mesh resume all" if stop.agent == "*" else f"mesh resume agent {stop.agent}"
