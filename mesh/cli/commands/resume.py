"""`mesh resume`: what was stopped goes on. Without an argument: what is stopped, by whom, since when, why."""

from typing import Annotated

import typer

from mesh.cli.commands.stop import chosen, tell, turned
from mesh.cli.framework.completion import agents
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.screen import Piece
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import ago, counted
from mesh.cli.views.switch_view import described, named, resume_command, who
from mesh.core.protocol.event import rfc3339
from mesh.core.run.control import AGENT, RUNNING, Control, Switch

app = verb()


@command(app, "resume", example="mesh resume agent pricing")
async def resume(
    session: Session,
    what: Annotated[str | None, typer.Argument(metavar="agent|all", autocompletion=lambda: ["agent", "all"])] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="of the agent", autocompletion=agents)] = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="without an argument: lift every stop there is")] = False,
) -> None:
    """Let a stopped agent go on, or end the stop of all.

    `all` ends the stop of all agents; those that were stopped by name stay stopped. Without an argument it shows every
    stop and changes nothing; with --yes it lifts them all.
    """
    if what is None:
        await _every(session, yes=yes)
        return
    wanted = Switch(AGENT, chosen(session, what, name), RUNNING, who())
    control, changed = await turned(session, wanted)
    tell(session, wanted, changed=changed, undo=_undo(wanted))
    if changed:
        session.screen.say(("▸ resumed  ", "green"), (named(wanted), "bold"))
        session.screen.note(("undo it: ", "dim"), _undo(wanted))
    else:
        session.screen.say(
            f"{named(wanted)}: {'there is no such stop' if wanted.agent == '*' else 'not stopped by name'}"
        )
    _still(session, control)


async def _every(session: Session, *, yes: bool) -> None:
    from mesh.runtime.control_follower import control_now

    async with session.log() as log:
        stops = (await control_now(log, session.topology)).stops
    if not stops:
        session.screen.note("Nothing is stopped.")
        return
    if yes:
        wanted = [stop._replace(state=RUNNING, by=who(), why="") for stop in stops]
        await turned(session, *wanted)
        for switch in wanted:
            tell(session, switch, changed=True, undo=_undo(switch))
            session.screen.say(("▸ resumed  ", "green"), (named(switch), "bold"))
        return
    rows: list[list[Piece]] = []
    for stop in stops:
        shown = {"switch": stop.key, "state": stop.state, "by": stop.by, "why": stop.why, "at": rfc3339(stop.at_ms)}
        session.screen.emit({**shown, "changed": False, "undo": resume_command(stop)})
        rows.append([(named(stop), "bold"), (ago(stop.at_ms), "dim"), stop.by, stop.why, (resume_command(stop), "dim")])
    session.screen.table(("STOPPED", "SINCE", "BY", "WHY", "UNDO"), rows)
    session.screen.note(f"{counted(len(stops), 'stop')}; nothing was changed. ", ("--yes lifts every one", "dim"))


def _still(session: Session, control: Control) -> None:
    """What keeps on standing still."""
    for stop in control.stops:
        session.screen.note(("still: ", "yellow"), *described(stop), (f"  {resume_command(stop)}", "dim"))


def _undo(switch: Switch) -> str:
    return "mesh stop all" if switch.agent == "*" else f"mesh stop agent {switch.agent}"
