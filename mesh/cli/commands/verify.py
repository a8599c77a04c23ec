"""`mesh verify`: check the log against the invariants."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.run_finding import find_runs
from mesh.cli.framework.session import Session, short

if TYPE_CHECKING:
    from mesh.adapters.ports import ReadLog
    from mesh.cli.framework.selectors import TimeSpan
    from mesh.operations.run_places import RunPlaces
    from mesh.operations.runs import Runs

DIFFERS = 1
app = verb()


@command(app, "verify", example="mesh verify --run 3f2a")
async def verify(
    session: Session,
    *,
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="only this run")] = None,
) -> int:
    """Check the log: decide it again and compare the results.

    Every record of the inbox is decided again, and the result is compared with the published records. The command
    changes nothing, and the mesh may be up meanwhile. Exit code 1 if something differs; the first difference is shown
    with both sides.
    """
    return await check_log(session, run)


async def check_log(session: Session, run: str | None, span: "TimeSpan | None" = None) -> int:
    """Check the log, one run, or the runs requested in a time span, and print the result. Returns the exit code."""
    from mesh.adapters.clock import SystemClock
    from mesh.cli.views import verify_view
    from mesh.operations.verification import WHOLE, Window
    from mesh.operations.verification import verify as check

    output = session.output
    began = time.monotonic()
    total = 0

    def read(records: int) -> None:
        nonlocal total
        total += records
        output.update(f"{total:,} records")

    async with session.read_log() as log:
        run_id, places = ("", None) if run is None else await _named(session, log, run)
        window = WHOLE if span is None else Window(*span.on(log.now_ms()))
        with output.status("reading"):
            checked = await check(
                log, session.topology, SystemClock(), run_id=run_id, places=places, window=window, read=read
            )
        where = short(log.url)
    took_s = max(time.monotonic() - began, 0.001)
    verify_view.emit(output, checked, run_id, round(total / took_s))
    verify_view.result(output, checked, run_id, where)
    output.note((f"{total:,} records read, {total / took_s:,.0f} a second", "dim"))
    return 0 if checked.first is None else DIFFERS


async def _named(session: Session, log: "ReadLog", name: str) -> "tuple[str, RunPlaces]":
    """Return the id of a run and where its records are."""

    async def look(runs: "Runs") -> "tuple[str, RunPlaces]":
        run_id = (await runs.find(name)).run_id
        return run_id, await runs.finder.places(run_id)

    return await find_runs(session, log, look)
