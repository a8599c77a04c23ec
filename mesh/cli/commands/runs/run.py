"""`mesh run`: list runs, show one, watch them; cancel, pause and resume them."""

import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import typer

from mesh.cli.commands.runs.cancel_pause_resume import add_commands, note_standstill, stops_json, stops_of
from mesh.cli.commands.runs.export_run import add_export
from mesh.cli.framework import run_finding
from mesh.cli.framework.completion import agents, types
from mesh.cli.framework.options import command, noun
from mesh.cli.framework.output import Piece
from mesh.cli.framework.selectors import SinceOption, UntilOption, WhereOption, time_span, where
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import ago, relocated, seconds, took
from mesh.cli.views import fault_view, run_view
from mesh.core.errors import InvalidInput
from mesh.core.history.run_query import SORTS, STATES, RunQuery
from mesh.core.history.run_summary import Summary
from mesh.core.history.timeline import History
from mesh.core.topology.units import usd_micros
from mesh.operations.runs import Runs

TASKS_MIN_MAX = 1_000_000_000

app = noun("List, show, watch, cancel, pause and resume runs.")


def _choices(names: Sequence[str]) -> Callable[[], list[str]]:
    return lambda: list(names)


@command(app, "list", example="mesh run list --state failed --since 1h")
async def list_runs(
    session: Session,
    *,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help=", ".join(STATES), autocompletion=_choices(STATES))
    ] = None,
    type: Annotated[str | None, typer.Option(metavar="TYPE", help="type of the request", autocompletion=types)] = None,
    subject: Annotated[str | None, typer.Option(metavar="GLOB", help="subject that matches: order-17*")] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="agent involved", autocompletion=agents)] = None,
    reason: Annotated[str | None, typer.Option(metavar="CODE", help="reason code of a refusal or failure")] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    slower_than: Annotated[str | None, typer.Option(metavar="TIME", help="that took longer: 500ms, 2s")] = None,
    tasks_min: Annotated[
        int | None, typer.Option(min=0, max=TASKS_MIN_MAX, metavar="N", help="with at least N tasks")
    ] = None,
    spent_min: Annotated[str | None, typer.Option(metavar="USD", help="that spent at least so much: 0.50")] = None,
    condition: WhereOption = None,
    sort: Annotated[str, typer.Option(metavar="FIELD", help=", ".join(SORTS), autocompletion=_choices(SORTS))] = SORTS[
        0
    ],
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="the largest number")] = 20,
) -> None:
    """List the latest runs, newest first.

    --since and --until choose by the time of the request. --where reads the payload of the request and the fields of
    --json. With --sort the runs that ended last, took longest, had most tasks or spent most come first.
    """
    span = time_span(since, until)
    query = RunQuery(
        state="" if state is None else _one_of("--state", state, STATES),
        type=type or "",
        subject=subject or "",
        agent=agent or "",
        code=reason or "",
        slower_than_ms=None if slower_than is None else round(seconds("--slower-than", slower_than) * 1_000),
        tasks_min=tasks_min,
        usd_micros_min=None if spent_min is None else _usd_micros("--spent-min", spent_min),
        sort=_one_of("--sort", sort, SORTS),
    )
    async with session.read_log() as log:
        chosen = where(condition, session.topology)
        since_ms, until_ms = span.on(log.now_ms())
        query = query._replace(since_ms=since_ms, until_ms=until_ms)
        rows = await run_finding.list_runs(session, log, query, limit=limit, where=chosen)
    for row in rows:
        session.output.emit(run_view.summary_json(row))
    if not rows:
        filtered = chosen is not None or query._replace(sort=SORTS[0]) != RunQuery()
        hint = "`mesh run list` shows all." if filtered else "`mesh publish TYPE JSON --follow` makes one."
        session.output.note(f"No such runs. {hint}" if filtered else f"No runs yet. {hint}")
        return
    now_ms = time.time_ns() // 1_000_000
    spent = (">SPENT",) if query.sort == "spent" or spent_min is not None else ()
    session.output.table(
        ("RUN", "STATE", "TYPE", "SUBJECT", ">TOOK", ">TASKS", *spent, "STARTED", "WHY"),
        [_row(row, now_ms, spent=bool(spent)) for row in rows],
    )


def _one_of(option: str, text: str, known: Sequence[str]) -> str:
    if text not in known:
        raise InvalidInput(
            f"unknown value {text[:64]!r}", code="usage", where=option, expected=", ".join(known), remedy=""
        )
    return text


def _usd_micros(option: str, text: str) -> int:
    try:
        return usd_micros(text)
    except InvalidInput as error:
        raise relocated(error, option) from error


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
        history = await run_finding.find_runs(session, log, lambda runs: runs.find(run), payloads=payload)
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


def _row(row: Summary, now_ms: int, *, spent: bool) -> list[Piece]:
    why = [*row.refusals, *(f"{agent} failed" for agent in row.failures), *(f"{name} starved" for name in row.starved)]
    why += [*(f"{type} unrouted" for type in row.unrouted), *(f"{unit} overspent" for unit in row.overspent)]
    return [
        run_view.id_of(row.run_id),
        run_view.state("paused" if row.paused else row.state),
        row.type,
        row.subject,
        took(row.took_ms) if row.took_ms is not None else (took(max(0, now_ms - row.opened_ms)), "dim"),
        f"{row.tasks}",
        *([f"${row.used.usd_micros / 1_000_000:.4f}"] if spent else []),
        (ago(row.opened_ms, now_ms), "dim"),
        (", ".join(dict.fromkeys(why)), "dim"),
    ]
