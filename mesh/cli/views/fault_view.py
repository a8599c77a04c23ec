"""Faults made with `mesh break`: permission to make them, and how other commands show them."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import ago, took
from mesh.core.errors import NotAccepted
from mesh.core.history.timeline import History
from mesh.core.protocol.event import rfc3339
from mesh.core.task.fault_injection import STORES, active_fault, parse_fault

if TYPE_CHECKING:
    from mesh.adapters.ports import Log
    from mesh.core.run.control import Control, Switch

REMEDY: Final = (
    "Write `chaos: true` below `mesh:` in topics.yaml, or set MESH_CHAOS=true for both, and restart the mesh"
)


def now_ms() -> int:
    """The wall time of this machine, in ms since the epoch. Times in output are relative to it."""
    return time.time_ns() // 1_000_000


def require_chaos(session: Session) -> None:
    """Raise NotAccepted unless topics.yaml allows faults."""
    if not session.topology.chaos:
        raise NotAccepted(
            "this mesh does not allow faults on purpose",
            where=session.topology.path,
            expected="mesh: {chaos: true}",
            remedy=REMEDY,
        )


async def write_switches(session: Session, *switches: "Switch", for_ms: int = 0) -> None:
    """Write switches to mesh.control, whatever its state was. `for_ms`: how long a fault lasts.

    Raises NotAccepted for a fault of an agent that the running mesh would ignore.
    """
    from mesh.client import Mesh

    async with session.log() as log:
        await session.create_embedded_topics(log)
        if for_ms and any(switch.agent not in STORES for switch in switches):
            await _require_running_chaos(log, session)
        for switch in switches:
            await Mesh(log, session.topology).send_switch(switch, for_ms=for_ms)


async def _require_running_chaos(log: "Log", session: Session) -> None:
    from mesh.adapters.clock import SystemClock
    from mesh.operations.rollout import adopted_topologies

    found = await adopted_topologies(log, session.topology, SystemClock())
    if found and not any(topology.chaos for topology in found):
        raise NotAccepted(
            "the mesh was started without chaos, so a fault would have no effect",
            where=log.url,
            expected="a `mesh up` with `mesh: {chaos: true}` or MESH_CHAOS=true",
            got="chaos off",
            remedy=REMEDY,
        )


def faults_of(history: History, control: "Control") -> "list[Switch]":
    """The faults that an open run meets: those of its agents, and those of log and board."""
    if history.ending:
        return []
    agents = dict.fromkeys(task.agent for task in history.tasks.values())
    found = (active_fault(control, name, now_ms()) for name in (*agents, *STORES))
    return [switch for switch in found if switch is not None]


def describe_fault(switch: "Switch") -> list[Piece]:
    """Describe a fault in one line: its effect, the time left, its age and its author."""
    fault = parse_fault(switch.how)
    does = "" if fault is None else fault.words
    left = took(max(0, switch.until_ms - now_ms()))
    since = f", for {left} more; broken {ago(switch.at_ms)} by {switch.by or 'unknown'}"
    return [(broken_name(switch), "bold"), f" {does}", (since, "dim")]


def broken_name(switch: "Switch") -> str:
    """Return the name of the broken part: `agent pricing`, `the log`."""
    return f"the {switch.agent}" if switch.agent in STORES else f"agent {switch.agent}"


def note_faults(session: Session, faults: "Sequence[Switch]") -> None:
    """Write one note for each fault, with the command that ends it."""
    for switch in faults:
        session.output.note(
            ("broken on purpose: ", "yellow"), *describe_fault(switch), (f"  mesh unbreak {switch.agent}", "dim")
        )


def faults_json(faults: "Sequence[Switch]") -> list[dict[str, Any]]:
    """Faults as JSON-able values."""
    return [
        {"broken": switch.agent, "how": switch.how, "by": switch.by, "until": rfc3339(switch.until_ms)}
        for switch in faults
    ]
