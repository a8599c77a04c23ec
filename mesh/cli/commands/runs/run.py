"""`mesh run`: list runs, show one, watch them; cancel, pause and resume them."""

import time
from contextlib import aclosing
from typing import Annotated, Any

import typer

from mesh.cli.commands.runs.cancel_pause_resume import add_commands, note_standstill, stops_json, stops_of
from mesh.cli.commands.runs.export_run import add_export
from mesh.cli.framework.completion import types
from mesh.cli.framework.options import command, noun
from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import ago, seconds, took
from mesh.cli.views import fault_view, run_view
from mesh.core.errors import InvalidInput
from mesh.core.history.run_summary import Summary
from mesh.core.history.timeline import History
from mesh.core.run.state import ENDINGS
from mesh.operations.runs import Runs

STATES = ("open", *ENDINGS)
app = noun("List, show, watch, cancel, pause and resume runs.")


@command(app, "list", example="mesh run list --state failed --since 1h")
async def list_runs(
    session: Session,
    *,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help=", ".join(STATES), autocompletion=lambda: list(STATES))
    ] = None,
    type: Annotated[str | None, typer.Option(metavar="TYPE", help="type of the request", autocompletion=types)] = None,
    since: Annotated[str | None, typer.Option(metavar="AGE", help="not older than this: 10m, 2h, 1d")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="the largest number")] = 20,
) -> None:
    """List the latest runs, newest first."""
    if state is not None and state not in STATES:
        raise InvalidInput(
            f"no run has the state {state!r}", code="usage", where="--state", expected=", ".join(STATES), remedy=""
        )
    since_s = None if since is None else seconds("--since", since)

    def matches(row: Summary) -> bool:
        return (state is None or row.state == state) and (type is None or row.type == type)

    async with session.read_log() as log:
        since_ms = None if since_s is None else log.now_ms() - round(since_s * 1_000)
        rows = await Runs(log, session.topology).latest(limit=limit, since_ms=since_ms, where=matches)
    for row in rows:
        session.output.emit(run_view.summary_json(row))
    if not rows:
        filtered = any(given is not None for given in (state, type, since))
        hint = "`mesh run list` shows all." if filtered else "`mesh publish TYPE JSON --follow` makes one."
        session.output.note(f"No such runs. {hint}" if filtered else f"No runs yet. {hint}")
        return
    now_ms = time.time_ns() // 1_000_000
    session.output.table(
        ("RUN", "STATE", "TYPE", "SUBJECT", ">TOOK", ">TASKS", "STARTED", "WHY"),
        [_row(row, now_ms) for row in rows],
    )


@command(app, "show", example="mesh run show 3f2a")
async def show(
    session: Session,
    run: Annotated[str, typer.Argument(metavar="ID", help="a run's id or its beginning, a request's id, or a subject")],
    *,
    payload: Annotated[bool, typer.Option("--payload", help="also the request and what each task emitted")] = False,
) -> None:
    """Show one run: tree, reasons, results, timeline.

    The time beside an agent is that of its function; `waited` is the time on its topic and between attempts. -v shows
    payloads, too.
    """
    from mesh.runtime.control_follower import control_now

    output = session.output
    payload = payload or output.verbosity > 0
    async with session.read_log() as log:
        history = await Runs(log, session.topology, payloads=payload).find(run)
        control = await control_now(log, session.topology)
    stops, broken = stops_of(history, control), fault_view.faults_of(history, control)
    beside: dict[str, Any] = {"stops": stops_json(stops)} if stops else {}
    beside |= {"broken": fault_view.faults_json(broken)} if broken else {}
    beside |= {"request": run_view.request_json(history)} if payload else {}
    output.emit({**run_view.history_json(history), **beside})
    run_view.headline(output, history, with_id=False)
    output.print("  ", (run_view.facts(history), "dim"))
    output.print("  ", (f"trace {run_view.trace_of(history)}", "dim"))
    output.print()
    run_view.tree(output, history)
    if history.skipped:
        output.print()
        run_view.skips(output, history)
    if any((history.refusals, history.failures, history.starved, history.unrouted, history.overspent)):
        output.print()
        run_view.reasons(output, history)
    if history.results:
        output.print()
        output.print(("results", "bold"))
        for result in history.results:
            run_view.result_lines(output, result, whole=output.verbosity > 0)
    if history.drafts:
        output.print()
        output.print(("drafts", "bold"), ("  results of loops that a limit ended", "dim"))
        for draft in history.drafts:
            run_view.result_lines(output, draft, whole=output.verbosity > 0)
    if payload:
        output.print()
        output.print(("payloads", "bold"))
        run_view.payloads(output, history)
    output.print()
    output.print(("timeline", "bold"))
    run_view.timeline(output, history)
    if history.differs:
        text = f"it was decided under another topology; by today's it would end {history.folded_ending}"
        output.note(("note ", "yellow"), text)
    note_standstill(session, history, stops)
    fault_view.note_faults(session, broken)
    if history.failures or history.refusals:
        output.note(("its dead letters: ", "dim"), f"mesh dead list --run {run_view.id_of(history.run_id)}")


@command(app, "watch", example="mesh run watch --json | jq .ending")
async def watch(
    session: Session,
    *,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, metavar="N", help="stop after N ends")] = None,
) -> None:
    """Show runs as they happen.

    Each run that ends is shown as a tree. With --json, each run has two lines: opened and ended.
    """
    output, left = session.output, count
    async with session.read_log() as log:
        runs = Runs(log, session.topology)
        places = await runs.ends()
        output.note(("watching for runs; Ctrl-C ends", "dim"))
        opened: set[str] = set()
        with output.status("no open runs"):
            async with aclosing(runs.watch(places)) as changes:
                async for change in changes:
                    history = change.history
                    if history.run_id not in opened and not change.ended:
                        opened.add(history.run_id)
                        output.emit({"event": "opened", "run": history.run_id, "type": history.type})
                    if change.ended:
                        opened.discard(history.run_id)
                        _print_ended(session, history)
                        left = None if left is None else left - 1
                        if left == 0:
                            return
                    output.update(f"{len(opened)} open" if opened else "no open runs")


add_commands(app)
add_export(app)


def _print_ended(session: Session, history: History) -> None:
    output = session.output
    output.emit({"event": "ended", **run_view.history_json(history)})
    run_view.headline(output, history)
    run_view.tree(output, history)
    run_view.reasons(output, history)


def _row(row: Summary, now_ms: int) -> list[Piece]:
    why = [*row.refusals, *(f"{agent} failed" for agent in row.failures), *(f"{name} starved" for name in row.starved)]
    why += [*(f"{type} unrouted" for type in row.unrouted), *(f"{unit} overspent" for unit in row.overspent)]
    return [
        run_view.id_of(row.run_id),
        run_view.state("paused" if row.paused else row.state),
        row.type,
        row.subject,
        took(row.took_ms) if row.took_ms is not None else (took(max(0, now_ms - row.opened_ms)), "dim"),
        f"{row.tasks}",
        (ago(row.opened_ms, now_ms), "dim"),
        (", ".join(dict.fromkeys(why)), "dim"),
    ]
