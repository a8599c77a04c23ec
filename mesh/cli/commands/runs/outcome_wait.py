"""Waiting for an outcome, and saying why there is none yet: nobody reads, an agent is stopped, it takes its time."""

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
async def patience(session: Session, log: "Log", place: "Appended", run_id: str) -> AsyncIterator[None]:
    """While something is awaited inside the block: after some seconds one note on stderr that says what is the matter.
    `place` is that of the request on mesh.inbox."""
    telling = asyncio.get_running_loop().create_task(_tell(session, log, place, run_id), name="patience")
    try:
        yield
    finally:
        telling.cancel()
        (ended,) = await asyncio.gather(telling, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended


async def _tell(session: Session, log: "Log", place: "Appended", run_id: str) -> None:
    from mesh.runtime.control_follower import control_now

    await asyncio.sleep(NOTE_AFTER_S)
    output, topology = session.output, session.topology
    try:
        if not await wait_until_consumed(log, topology, place, within_s=0):
            output.note(("no answer yet: ", "yellow"), NOT_CONSUMED)
            return
        stops = (await control_now(log, topology)).stops
    except LogUnavailable:
        return  # whoever awaits the outcome meets it too, and says so
    for stop in stops:
        output.note(("no answer yet: ", "yellow"), *describe_stop(stop), (f"  {resume_command(stop)}", "dim"))
    if not stops:
        output.note(
            ("no answer yet; ", "dim"), f"mesh run show {run_view.id_of(run_id)}", (" tells where it stands", "dim")
        )
