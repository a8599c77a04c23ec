"""`mesh replay`: take a recorded run again, in one of its modes. Reads only."""

from typing import Annotated

import typer

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.session import Session

app = verb()


@command(app, "replay", example="mesh replay 3f2a -v")
async def replay(
    session: Session,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="a run's id or its beginning, a request's id, or a subject")
    ],
) -> int:
    """Decide a recorded run again, and show each event: what it changed, and why each effect followed.

    Nothing is written and no agent is called. -v shows payloads, too.
    """
    from mesh.cli.commands.replay.print_steps import print_steps

    return await print_steps(session, run)
