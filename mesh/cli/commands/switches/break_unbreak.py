"""`mesh break` and `mesh unbreak`: faults on purpose, for demos and game days. A fault ends by itself in time."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mesh.cli.commands.switches.stop_resume import choose_agent
from mesh.cli.framework.completion import agents
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session, embedded_path
from mesh.cli.framework.text import seconds, span, took
from mesh.cli.views import fault_view
from mesh.cli.views.switch_view import current_user
from mesh.core.errors import InvalidInput, NotAccepted
from mesh.core.run.control import MENDED
from mesh.core.task.fault_injection import (
    CRASH,
    ERROR,
    HANG,
    LOG,
    SLOW,
    STORES,
    InjectedFault,
    active_faults,
    fault_switch,
    parse_fault,
)

if TYPE_CHECKING:
    from mesh.core.run.control import Switch

NAME_HELP: Final = "name of an agent, or the embedded log or board"
ERROR_CHARS_MAX: Final = 200
FOR_S_MAX: Final = 3_600
break_app, unbreak_app = verb(), verb()


@command(break_app, "break", example='mesh break pricing --error "no such table: prices" --for 30s')
async def break_(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="AGENT|log|board", help=NAME_HELP, autocompletion=agents)],
    *,
    error: Annotated[str | None, typer.Option("--error", metavar="TEXT", help="the agent raises this error")] = None,
    slow: Annotated[str | None, typer.Option("--slow", metavar="TIME", help="each call takes this much longer")] = None,
    crash: Annotated[bool, typer.Option("--crash", help="its process dies at the next task")] = False,
    hang: Annotated[bool, typer.Option("--hang", help="calls do not end; a log takes no writes")] = False,
    lasting: Annotated[str, typer.Option("--for", metavar="TIME", help="how long the fault lasts, at most 1h")] = "60s",
) -> None:
    """Break an agent on purpose, or the embedded log or board.

    Works only where topics.yaml says `mesh: {chaos: true}`. An agent is broken everywhere within a second, until the
    time is over or `mesh unbreak` ends it. This command keeps a log or board locked until it ends; Ctrl-C ends it.
    `mesh run show` names the faults that a run meets.
    """
    fault = _chosen_fault(name, error, slow, crash=crash, hang=hang)
    for_s = seconds("--for", lasting)
    if not 0 < for_s <= FOR_S_MAX:
        raise InvalidInput("invalid duration", code="usage", where="--for", expected="at most 1h", got=lasting)
    fault_view.require_chaos(session)
    for_ms = round(for_s * 1_000)
    switch = fault_switch(name, fault, by=current_user(), until_ms=fault_view.now_ms() + for_ms)
    path = _embedded_file(session, name) if name in STORES else None
    if path is None:
        choose_agent(session, "agent", name)
    await fault_view.write_switches(session, switch, for_ms=for_ms)
    _print_broken(session, switch, for_s)
    if path is None:
        session.output.note(("undo it: ", "dim"), f"mesh unbreak {name}")
        return
    try:
        await _lock(session, path, for_s, fault)
    finally:
        await fault_view.write_switches(session, switch._replace(state=MENDED))
    session.output.print(("▸ fixed  ", "green"), (fault_view.broken_name(switch), "bold"))


@command(unbreak_app, "unbreak", example="mesh unbreak pricing")
async def unbreak(
    session: Session,
    name: Annotated[
        str | None, typer.Argument(metavar="AGENT|log|board", help=NAME_HELP, autocompletion=agents)
    ] = None,
) -> None:
    """End the faults of `mesh break`.

    With an argument, only the faults of this agent end.

    A broken log or board stays locked by its `mesh break`: end that command with Ctrl-C.
    """
    from mesh.adapters.log_time import ask_time
    from mesh.runtime.control_follower import control_now

    if name is not None and name not in STORES:
        choose_agent(session, "agent", name)
    async with session.log() as log:
        control = await control_now(log, session.topology)
        await ask_time(log, session.topology)
        at_ms = log.now_ms()
    found = [switch for switch in active_faults(control, at_ms) if name in (None, switch.agent)]
    if not found:
        session.output.note("Nothing is broken on purpose." if name is None else f"{name} is not broken on purpose.")
        return
    await fault_view.write_switches(session, *(switch._replace(state=MENDED, by=current_user()) for switch in found))
    for switch in found:
        session.output.emit({"mended": switch.agent, "how": switch.how})
        session.output.print(("▸ fixed  ", "green"), (fault_view.broken_name(switch), "bold"))


def _chosen_fault(name: str, error: str | None, slow: str | None, *, crash: bool, hang: bool) -> InjectedFault:
    """The fault that the options name. Raises InvalidInput."""
    given: list[InjectedFault] = []
    if error is not None:
        if not error.strip() or len(error) > ERROR_CHARS_MAX:
            expected = f"1 to {ERROR_CHARS_MAX} characters"
            raise InvalidInput("invalid message", code="usage", where="--error", expected=expected)
        given.append(InjectedFault(ERROR, error))
    if slow is not None:
        delay_ms = round(seconds("--slow", slow) * 1_000)
        if not 0 < delay_ms <= FOR_S_MAX * 1_000:
            raise InvalidInput("invalid delay", code="usage", where="--slow", expected="at most 1h", got=slow)
        given.append(InjectedFault(SLOW, delay_ms=delay_ms))
    given += [InjectedFault(kind) for kind, wanted in ((CRASH, crash), (HANG, hang)) if wanted]
    allowed = "--slow or --hang" if name in STORES else "--error, --slow, --crash or --hang"
    if len(given) != 1 or (name in STORES and given[0].kind not in (SLOW, HANG)):
        where = f"mesh break {name}"
        raise InvalidInput("exactly one fault must be chosen", code="usage", where=where, expected=allowed)
    return given[0]


def _embedded_file(session: Session, name: str) -> Path:
    """The file of the embedded log or board. Raises NotAccepted for one that is not embedded."""
    settings = session.settings
    url = settings.log if name == LOG else settings.board or settings.log
    path = embedded_path(url)
    if path is None:
        remedy = "Use the tools of that system, such as stopping a broker"
        raise NotAccepted(f"only an embedded {name} can be broken from here", where=url, remedy=remedy)
    return path


async def _lock(session: Session, path: Path, for_s: float, fault: InjectedFault) -> None:
    from mesh.adapters.sqlite.storage.write_lock import hold_lock

    turn_s = fault.delay_ms / 1_000 if fault.kind == SLOW else None
    with session.output.status(f"{path.name} is locked for {took(for_s * 1_000)}; Ctrl-C ends it"):
        await hold_lock(path, for_s=for_s, turn_s=turn_s)


def _print_broken(session: Session, switch: "Switch", for_s: float) -> None:
    session.output.emit({"changed": True, **fault_view.faults_json([switch])[0]})
    pieces: list[Piece] = [("✗ broken  ", "red"), (fault_view.broken_name(switch), "bold")]
    fault = parse_fault(switch.how)
    session.output.print(*pieces, f" {fault.words if fault else ''}", (f"  for {span(round(for_s * 1_000))}", "dim"))
