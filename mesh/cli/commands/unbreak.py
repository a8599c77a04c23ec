"""`mesh unbreak`: what was broken on purpose works again. Without an argument: everything."""

from typing import Annotated

import typer

from mesh.cli.commands.stop import chosen
from mesh.cli.framework.completion import agents
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.session import Session
from mesh.cli.views import fault_view
from mesh.cli.views.switch_view import who
from mesh.core.run.control import MENDED
from mesh.core.task.fault_injection import STORES
from mesh.core.task.fault_injection import faults as standing

app = verb()


@command(app, "unbreak", example="mesh unbreak pricing")
async def unbreak(
    session: Session,
    name: Annotated[str | None, typer.Argument(metavar="AGENT|log|board", autocompletion=agents)] = None,
) -> None:
    """Mend what was broken on purpose: one agent, or without an argument everything.

    A log or board is held by the `mesh break` that broke it: end that with Ctrl-C.
    """
    from mesh.adapters.log_time import ask_time
    from mesh.runtime.control_follower import control_now

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
    await fault_view.turn(session, *(switch._replace(state=MENDED, by=who()) for switch in found))
    for switch in found:
        session.screen.emit({"mended": switch.agent, "how": switch.how})
        session.screen.say(("▸ mended  ", "green"), (fault_view.named(switch), "bold"))
