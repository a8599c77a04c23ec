"""Notes for the user who waits for an outcome: no orchestrator reads, an agent is stopped, or the run takes long."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from mesh.cli.framework.session import Session
from mesh.cli.views import run_view
from mesh.cli.views.switch_view import NOT_CONSUMED, describe_stop, resume_command, wait_until_consumed
from mesh.core.errors import LogUnavailable

if TYPE_CHECKING:
    from mesh.adapters.ports import Appended, Log

NOTE_AFTER_S: Final = 3.0


@asynccontextmanager
async def explained_wait(session: Session, log: "Log", request: "Appended", run_id: str) -> AsyncIterator[None]:
    """Note on stderr after NOTE_AFTER_S why the block still waits. `request`: its record on mesh.inbox."""
    noting = asyncio.get_running_loop().create_task(_note(session, log, request, run_id), name="explained wait")
    try:
        yield
    finally:
        noting.cancel()
        (ended,) = await asyncio.gather(noting, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended


async def _note(session: Session, log: "Log", request: "Appended", run_id: str) -> None:
    from mesh.runtime.control_follower import control_now

    await asyncio.sleep(NOTE_AFTER_S)
    output, topology = session.output, session.topology
    try:
        if not await wait_until_consumed(log, topology, request, within_s=0):
            output.note(("no answer yet: ", "yellow"), NOT_CONSUMED)
            return
        stops = (await control_now(log, topology)).stops
    except LogUnavailable:
        return  # the wait for the outcome fails, too, and reports it
    for stop in stops:
        output.note(("no answer yet: ", "yellow"), *describe_stop(stop), (f"  {resume_command(stop)}", "dim"))
    if not stops:
        output.note(("no answer yet; ", "dim"), f"mesh run show {run_view.id_of(run_id)}", (" shows its state", "dim"))
