"""`mesh stop`: the kill switch, for one agent and for all. Acts at once; `mesh resume` undoes it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesh.cli.framework.completion import agents
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.screen import Piece
from mesh.cli.framework.session import Session, embedded_path
from mesh.cli.views.switch_view import described, named, resume_command, who
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.protocol.event import rfc3339
from mesh.core.suggest import nearest

if TYPE_CHECKING:
    from mesh.core.run.control import Control, Switch

app = verb()


@command(app, "stop", example='mesh stop agent pricing --why "it mails customers"')
async def stop(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="agent|all", autocompletion=lambda: ["agent", "all"])],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="of the agent", autocompletion=agents)] = None,
    *,
    why: Annotated[str, typer.Option(metavar="TEXT", help="told to everybody who asks why nothing happens")] = "",
) -> None:
    """Stop an agent, or all of them, everywhere within a second.

    Nothing more of it is begun, and what it does right now is broken off. Its tasks are kept and done after
    `mesh resume`; that costs them no attempt. Events are taken in meanwhile, and the deadlines of runs go on.
    """
    from mesh.core.run.control import AGENT, STOPPED, Switch

    wanted = Switch(AGENT, chosen(session, what, name), STOPPED, who(), why)
    control, changed = await turned(session, wanted)
    stands = control.switches[wanted.key]
    tell(session, stands, changed=changed, undo=resume_command(stands))
    if changed:
        session.screen.say(("■ stopped  ", "red"), (named(stands), "bold"))
    else:
        session.screen.say(*_already(stands))
    session.screen.note(("undo it: ", "dim"), resume_command(stands))


def chosen(session: Session, what: str, name: str | None) -> str:
    """The agent that the arguments name; `*` for all. Raises InvalidInput, NotFound."""
    from mesh.core.run.control import ALL

    if what == "all" and name is None:
        return ALL
    if what != "agent" or name is None:
        got = " ".join(filter(None, (what, name)))
        raise InvalidInput(
            "that is nothing to turn", code="usage", where="mesh", expected="agent NAME, or all", got=got
        )
    if name not in session.topology.agents:
        near = nearest(name, session.topology.agents)
        remedy = f"Did you mean {near!r}?" if near else f"Known: {', '.join(session.topology.agents)}"
        raise NotFound(f"no agent is called {name[:128]!r}", where=session.topology.path, remedy=remedy)
    return name


async def turned(session: Session, *wanted: "Switch") -> "tuple[Control, bool]":
    """Turn switches that stand otherwise; what mesh.control says then, and whether anything was changed."""
    from mesh.app.wiring import topic_specs
    from mesh.client import Mesh
    from mesh.runtime.control_follower import control_now

    topology = session.topology
    async with session.log() as log:
        if embedded_path(session.settings.log) is not None:
            await log.create_topics(topic_specs(topology))
        before = await control_now(log, topology)
        due = [s for s in wanted if (s.key in before.switches) == s.at_rest]
        for switch in due:
            await Mesh(log, topology).send_switch(switch)
        return (await control_now(log, topology) if due else before), bool(due)


def tell(session: Session, switch: "Switch", *, changed: bool, undo: str) -> None:
    """One switch as it stands now, with `--json`."""
    shown: dict[str, Any] = {"switch": switch.key, "state": switch.state, "changed": changed}
    session.screen.emit({**shown, "by": switch.by, "why": switch.why, "at": rfc3339(switch.at_ms), "undo": undo})


def _already(stop: "Switch") -> list[Piece]:
    return [("■ ", "red"), *described(stop)]
