"""`mesh stop` and `mesh resume`: the kill switch for one agent or for all of them. A stop acts at once."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mesh.cli.framework.completion import agents
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import ago, counted
from mesh.cli.views.switch_view import current_user, describe_stop, resume_command, stopped_name
from mesh.core.errors import InvalidInput
from mesh.core.protocol.event import rfc3339
from mesh.core.run.control import AGENT, ALL, RUNNING, STOPPED, Switch

if TYPE_CHECKING:
    from mesh.core.run.control import Control

TARGETS: Final = ("agent", "all")
TARGET_HELP: Final = "`agent`: the named one; `all`: every agent"
stop_app, resume_app = verb(), verb()
AgentName = Annotated[str | None, typer.Argument(metavar="NAME", help="name of the agent", autocompletion=agents)]


@command(stop_app, "stop", example='mesh stop agent pricing --why "it mails customers"')
async def stop(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="agent|all", autocompletion=lambda: list(TARGETS), help=TARGET_HELP)],
    name: AgentName = None,
    *,
    why: Annotated[str, typer.Option(metavar="TEXT", help="shown wherever the stop is shown")] = "",
) -> None:
    """Stop an agent, or all agents, everywhere within a second.

    The agent gets no new task, and its running calls are cancelled. Its tasks are kept and done after `mesh resume`;
    the stop costs them no attempt. Events are still accepted meanwhile, and the deadlines of runs go on.
    """
    wanted = Switch(AGENT, choose_agent(session, what, name), STOPPED, current_user(), why)
    control, changed = await _write_changes(session, wanted)
    current = control.switches[wanted.key]
    _emit(session, current, changed=changed, undo=resume_command(current))
    if changed:
        session.output.print(("■ stopped  ", "red"), (stopped_name(current), "bold"))
    else:
        session.output.print(("■ ", "red"), *describe_stop(current))
    session.output.note(("undo it: ", "dim"), resume_command(current))


@command(resume_app, "resume", example="mesh resume agent pricing")
async def resume(
    session: Session,
    what: Annotated[
        str | None, typer.Argument(metavar="agent|all", autocompletion=lambda: list(TARGETS), help=TARGET_HELP)
    ] = None,
    name: AgentName = None,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="without an argument: lift every stop")] = False,
) -> None:
    """Resume a stopped agent, or end the stop of all agents.

    `all` ends the stop of all agents; agents that were stopped by name stay stopped. Without an argument the command
    lists every stop and changes nothing; with --yes it lifts them all.
    """
    if what is None:
        await _list_or_lift_all(session, lift=yes)
        return
    wanted = Switch(AGENT, choose_agent(session, what, name), RUNNING, current_user())
    control, changed = await _write_changes(session, wanted)
    undo = _stop_command(wanted)
    _emit(session, wanted, changed=changed, undo=undo)
    if changed:
        session.output.print(("▸ resumed  ", "green"), (stopped_name(wanted), "bold"))
        session.output.note(("undo it: ", "dim"), undo)
    else:
        reason = "all agents were not stopped together" if wanted.agent == ALL else "not stopped by name"
        session.output.print(f"{stopped_name(wanted)}: {reason}")
    for other in control.stops:
        session.output.note(("still: ", "yellow"), *describe_stop(other), (f"  {resume_command(other)}", "dim"))


async def _list_or_lift_all(session: Session, *, lift: bool) -> None:
    from mesh.runtime.control_follower import control_now

    async with session.log() as log:
        stops = (await control_now(log, session.topology)).stops
    if not stops:
        session.output.note("Nothing is stopped.")
        return
    if lift:
        wanted = [stop._replace(state=RUNNING, by=current_user(), why="") for stop in stops]
        await _write_changes(session, *wanted)
        for switch in wanted:
            _emit(session, switch, changed=True, undo=_stop_command(switch))
            session.output.print(("▸ resumed  ", "green"), (stopped_name(switch), "bold"))
        return
    rows: list[list[Piece]] = []
    for stop in stops:
        undo = resume_command(stop)
        _emit(session, stop, changed=False, undo=undo)
        rows.append([(stopped_name(stop), "bold"), (ago(stop.at_ms), "dim"), stop.by, stop.why, (undo, "dim")])
    session.output.table(("STOPPED", "SINCE", "BY", "WHY", "UNDO"), rows)
    session.output.note(f"{counted(len(stops), 'stop')}; nothing was changed. ", ("--yes lifts every one", "dim"))


def choose_agent(session: Session, what: str, name: str | None) -> str:
    """Return the agent that the arguments name; `*` for all. Raises InvalidInput, NotFound."""
    if what == "all" and name is None:
        return ALL
    if what != "agent" or name is None:
        got = " ".join(filter(None, (what, name)))
        raise InvalidInput("invalid target", code="usage", where="mesh", expected="agent NAME, or all", got=got)
    session.require_agents([name])
    return name


async def _write_changes(session: Session, *wanted: Switch) -> "tuple[Control, bool]":
    """Write the switches that differ from mesh.control. Return what mesh.control says then, and whether it changed."""
    from mesh.client import Mesh
    from mesh.runtime.control_follower import control_now

    topology = session.topology
    async with session.log() as log:
        await session.create_embedded_topics(log)
        before = await control_now(log, topology)
        due = [s for s in wanted if (s.key in before.switches) == s.at_rest]
        for switch in due:
            await Mesh(log, topology).send_switch(switch)
        return (await control_now(log, topology) if due else before), bool(due)


def _emit(session: Session, switch: Switch, *, changed: bool, undo: str) -> None:
    """Write one switch as a JSON line."""
    shown: dict[str, Any] = {"switch": switch.key, "state": switch.state, "changed": changed}
    session.output.emit({**shown, "by": switch.by, "why": switch.why, "at": rfc3339(switch.at_ms), "undo": undo})


def _stop_command(switch: Switch) -> str:
    """The command that stops again what was resumed."""
    return "mesh stop all" if switch.agent == ALL else f"mesh stop agent {switch.agent}"
