"""What was broken on purpose, told by the commands that show why something does not work; and who may break things."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from mesh.cli.framework.screen import Piece
from mesh.cli.framework.session import Session, embedded_path
from mesh.cli.framework.text import ago, took
from mesh.core.errors import NotAccepted
from mesh.core.history.timeline import History
from mesh.core.protocol.event import rfc3339
from mesh.core.task.fault_injection import STORES, break_of, fault_of

if TYPE_CHECKING:
    from mesh.adapters.ports import Log
    from mesh.core.run.control import Control, Switch

REMEDY: Final = (
    "Write `chaos: true` below `mesh:` in topics.yaml, or set MESH_CHAOS=true for both, and start the mesh anew"
)


def now_ms() -> int:
    """Wall time of this machine: what people see is told by it."""
    return time.time_ns() // 1_000_000


def allow(session: Session) -> None:
    """Raise NotAccepted unless topics.yaml allows faults."""
    if not session.topology.chaos:
        raise NotAccepted(
            "nothing of this mesh may be broken on purpose",
            where=session.topology.path,
            expected="mesh: {chaos: true}",
            remedy=REMEDY,
        )


async def turn(session: Session, *switches: "Switch", for_ms: int = 0) -> None:
    """Write switches to mesh.control, whatever stood there. `for_ms`: how long a fault lasts. Raises NotAccepted for a
    fault of an agent that the running mesh would ignore."""
    from mesh.app.wiring import topic_specs
    from mesh.client import Mesh

    async with session.log() as log:
        if embedded_path(session.settings.log) is not None:
            await log.create_topics(topic_specs(session.topology))
        if for_ms and any(switch.agent not in STORES for switch in switches):
            await _expect_allowed(log, session)
        for switch in switches:
            await Mesh(log, session.topology).send_switch(switch, for_ms=for_ms)


async def _expect_allowed(log: "Log", session: Session) -> None:
    from mesh.adapters.clock import SystemClock
    from mesh.operations.rollout import adopted

    found = await adopted(log, session.topology, SystemClock())
    if found and not any(topology.chaos for topology in found):
        raise NotAccepted(
            "the mesh was started without chaos, so a fault would have no effect",
            where=log.url,
            expected="a `mesh up` with `mesh: {chaos: true}` or MESH_CHAOS=true",
            got="chaos off",
            remedy=REMEDY,
        )


def faults_of(history: History, control: "Control") -> "list[Switch]":
    """The faults that an open run meets: those of its agents that are not done, and of log and board."""
    if history.ending:
        return []
    agents = dict.fromkeys(task.agent for task in history.tasks.values())
    found = (fault_of(control, name, now_ms()) for name in (*agents, *STORES))
    return [switch for switch in found if switch is not None]


def told(switch: "Switch") -> list[Piece]:
    """A fault for people: what it does, until when, since when and by whom."""
    fault = break_of(switch.how)
    does = "" if fault is None else fault.words
    left = took(max(0, switch.until_ms - now_ms()))
    since = f", for {left} more; broken {ago(switch.at_ms)} by {switch.by or 'somebody'}"
    return [(named(switch), "bold"), f" {does}", (since, "dim")]


def named(switch: "Switch") -> str:
    """What is broken: `agent pricing`, `the log`."""
    return f"the {switch.agent}" if switch.agent in STORES else f"agent {switch.agent}"


def tell(session: Session, faults: "Sequence[Switch]") -> None:
    """Lines beside the results, with the command that ends each."""
    for switch in faults:
        session.screen.note(("broken on purpose: ", "yellow"), *told(switch), (f"  mesh unbreak {switch.agent}", "dim"))


def faults_json(faults: "Sequence[Switch]") -> list[dict[str, Any]]:
    """Faults in a JSON line."""
    return [
        {"broken": switch.agent, "how": switch.how, "by": switch.by, "until": rfc3339(switch.until_ms)}
        for switch in faults
    ]
