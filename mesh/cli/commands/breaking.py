"""`mesh break`: a fault on purpose, for demos and game days. It ends by itself; `mesh unbreak` ends it sooner."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesh.cli.commands.stop import chosen
from mesh.cli.framework.completion import agents
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.screen import Piece
from mesh.cli.framework.session import Session, embedded_path
from mesh.cli.framework.text import seconds, span, took
from mesh.cli.views import fault_view
from mesh.cli.views.switch_view import who
from mesh.core.errors import InvalidInput, NotAccepted
from mesh.core.run.control import MENDED
from mesh.core.task.fault_injection import CRASH, ERROR, HANG, LOG, SLOW, STORES, Break, break_of, broken

if TYPE_CHECKING:
    from mesh.core.run.control import Switch

ERROR_CHARS_MAX = 200
FOR_S_MAX = 3_600
app = verb()


@command(app, "break", example='mesh break pricing --error "no such table: prices" --for 30s')
async def break_(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="AGENT|log|board", autocompletion=agents)],
    *,
    error: Annotated[str | None, typer.Option("--error", metavar="TEXT", help="its function raises")] = None,
    slow: Annotated[str | None, typer.Option("--slow", metavar="TIME", help="it takes so much longer: 5s")] = None,
    crash: Annotated[bool, typer.Option("--crash", help="its process dies at the next task")] = False,
    hang: Annotated[bool, typer.Option("--hang", help="it does not end; the log takes no writes")] = False,
    lasting: Annotated[str, typer.Option("--for", metavar="TIME", help="how long, at most 1h")] = "60s",
) -> None:
    """Break an agent on purpose, or the embedded log or board.

    Only where topics.yaml says `mesh: {chaos: true}`. An agent is broken everywhere within a second, and mended by
    itself after a while or by `mesh unbreak`. Log and board are held locked by this command until it ends; Ctrl-C ends
    it. What a run meets is shown by `mesh run show`.
    """
    fault = _chosen(name, error, slow, crash=crash, hang=hang)
    for_s = seconds("--for", lasting)
    if not 0 < for_s <= FOR_S_MAX:
        raise InvalidInput("so long nothing is broken", code="usage", where="--for", expected="at most 1h", got=lasting)
    fault_view.allow(session)
    for_ms = round(for_s * 1_000)
    switch = broken(name, fault, by=who(), until_ms=fault_view.now_ms() + for_ms)
    if name not in STORES:
        chosen(session, "agent", name)
        await fault_view.turn(session, switch, for_ms=for_ms)
        _tell(session, switch, for_s)
        session.screen.note(("undo it: ", "dim"), f"mesh unbreak {name}")
        return
    path = _file(session, name)
    await fault_view.turn(session, switch, for_ms=for_ms)
    _tell(session, switch, for_s)
    try:
        await _hold(session, path, for_s, fault)
    finally:
        await fault_view.turn(session, switch._replace(state=MENDED))
    session.screen.say(("▸ mended  ", "green"), (fault_view.named(switch), "bold"))


def _chosen(name: str, error: str | None, slow: str | None, *, crash: bool, hang: bool) -> Break:
    """The fault that the options name. Raises InvalidInput."""
    given: list[Break] = []
    if error is not None:
        if not error.strip() or len(error) > ERROR_CHARS_MAX:
            expected = f"1 to {ERROR_CHARS_MAX} characters"
            raise InvalidInput("that is no message", code="usage", where="--error", expected=expected)
        given.append(Break(ERROR, error))
    if slow is not None:
        delay_ms = round(seconds("--slow", slow) * 1_000)
        if not 0 < delay_ms <= FOR_S_MAX * 1_000:
            raise InvalidInput("that is no delay", code="usage", where="--slow", expected="at most 1h", got=slow)
        given.append(Break(SLOW, delay_ms=delay_ms))
    given += [Break(kind) for kind, wanted in ((CRASH, crash), (HANG, hang)) if wanted]
    may = "--slow or --hang" if name in STORES else "--error, --slow, --crash or --hang"
    if len(given) != 1 or (name in STORES and given[0].kind not in (SLOW, HANG)):
        raise InvalidInput("say how it breaks, in one way", code="usage", where=f"mesh break {name}", expected=may)
    return given[0]


def _file(session: Session, name: str) -> Path:
    """The file of the embedded log or board. Raises NotAccepted for one that is elsewhere."""
    settings = session.settings
    url = settings.log if name == LOG else settings.board or settings.log
    path = embedded_path(url)
    if path is None:
        remedy = "Use the tools of that system, such as stopping a broker"
        raise NotAccepted(f"only an embedded {name} can be broken from here", where=url, remedy=remedy)
    return path


async def _hold(session: Session, path: Path, for_s: float, fault: Break) -> None:
    from mesh.adapters.sqlite.storage.hold import hold

    turn_s = fault.delay_ms / 1_000 if fault.kind == SLOW else None
    with session.screen.status(f"{path.name} is held for {took(for_s * 1_000)}; Ctrl-C ends it"):
        await hold(path, for_s=for_s, turn_s=turn_s)


def _tell(session: Session, switch: "Switch", for_s: float) -> None:
    session.screen.emit({"changed": True, **fault_view.faults_json([switch])[0]})
    pieces: list[Piece] = [("✗ broken  ", "red"), (fault_view.named(switch), "bold")]
    fault = break_of(switch.how)
    session.screen.say(*pieces, f" {fault.words if fault else ''}", (f"  for {span(round(for_s * 1_000))}", "dim"))
