"""`mesh unbreak`: what was broken on purpose works again. Without an argument: everything."""

from typing import Annotated

import typer

from mesh.cli import faults
from mesh.cli.complete import agents
from mesh.cli.options import command, verb
from mesh.cli.session import Session
from mesh.cli.steering import who
from mesh.cli.stop import chosen
from mesh.core.chaos import STORES
from mesh.core.chaos import faults as standing
from mesh.core.control import MENDED

app = verb()


@command(app, "unbreak", example="mesh unbreak pricing")
async def unbreak(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="AGENT|log|board", autocompletion=agents)] = None,
) -> None:
    """Mend what was broken on purpose: one agent, or without an argument everything.

    A log or board is held by the `mesh break` that broke it: end that with Ctrl-C.
    """
    from mesh.wire.follow import control_now
    from mesh.wire.logtime import ask_time

    if name is not None and name not in STORES:
        chosen(session, "agent", name)
    async with session.log() as log:
        control = await control_now(log, session.topology)
        await ask_time(log, session.topology)
        at_ms = log.now_ms()
    found = [switch for switch in standing(control, at_ms) if name in (None, switch.agent)]
    if not found:
        session.screen.note("Nothing is broken on purpose." if name is None else f"{name} is not broken on purpose.")
        return
    await faults.turn(session, *(switch._replace(state=MENDED, by=who()) for switch in found))
    for switch in found:
        session.screen.emit({"mended": switch.agent, "how": switch.how})
        session.screen.say(("▸ mended  ", "green"), (faults.named(switch), "bold"))
