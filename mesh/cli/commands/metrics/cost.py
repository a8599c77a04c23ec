"""`mesh cost`: tokens and money that answers reported, by agent, run, type of request or day."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Piece
from mesh.cli.framework.selectors import time_form
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import counted, moment
from mesh.core.errors import InvalidInput
from mesh.core.metrics.costs import BY

if TYPE_CHECKING:
    from mesh.core.metrics.costs import CostRow

ROWS_MAX: Final = 50
"""Rows of the table; --json has all."""
app = verb()


@command(app, "cost", example="mesh cost --by agent --since 7d")
async def cost(
    session: Session,
    *,
    by: Annotated[
        str, typer.Option("--by", metavar="|".join(BY), autocompletion=lambda: list(BY), help="what to sum by")
    ] = "agent",
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="from this time on: 24h, 7d, 2026-11-20T12:00Z, @MS")
    ] = "7d",
) -> None:
    """Show what agents, runs, types of requests or days cost: tokens and money, as agents reported them.

    Agents report with `ctx.spend(usd=…, tokens=…)`, also when they fail, so a retry costs again. PER RUN is the money
    for one completed run, that of an agent its part of it: what the agent added to each run. A day is one of this
    machine's time zone. --json has a line for each row, the last one for the total.
    """
    from mesh.cli.views.run_view import id_of
    from mesh.operations.health.cost_reading import read_costs

    if by not in BY:
        raise InvalidInput(
            "costs are not summed by this", code="bad_value", where="--by", expected=", ".join(BY), got=by[:64]
        )
    form = time_form("--since", since)
    async with session.read_log() as log:
        since_ms = form.on(log.now_ms())
        with session.output.status("reading the log"):
            bill, completed = await read_costs(log, session.topology, by, since_ms, lambda at_ms: moment(at_ms)[:10])
    rows, total = bill.rows(in_order=by == "day"), bill.total
    for row in rows:
        session.output.emit({by: row.name, **_json(row, completed if by == "agent" else None)})
    session.output.emit({"total": True, **_json(total, completed), "completed_runs": completed})
    if not rows:
        answered = counted(bill.answers, "answer")
        session.output.print(f"Nothing was spent since {moment(since_ms)}: {answered}, none with tokens or money.")
        session.output.note(("Agents report them with ctx.spend(usd=…, tokens=…).", "dim"))
        return
    shown = [_cells(id_of(row.name) if by == "run" else row.name, row, completed, by) for row in rows[:ROWS_MAX]]
    shown.append(_cells("total", total, completed, by))
    session.output.print((f"since {moment(since_ms)}, {counted(completed, 'completed run')}", "dim"))
    session.output.table((by.upper(), ">RUNS", ">ANSWERS", ">TOKENS", ">USD", ">SHARE", ">PER RUN"), shown)
    session.output.omitted(len(rows) - ROWS_MAX)


def _cells(name: str, row: "CostRow", completed: int, by: str) -> list[Piece]:
    used = row.cost
    return [
        (name, "bold"),
        f"{row.runs:,}" if by != "run" or name == "total" else "",
        f"{used.answers:,}",
        f"{used.tokens:,}" if used.tokens else "",
        f"{used.usd:,.4f}" if used.usd_micros else "",
        f"{row.share * 100:.0f} %",
        f"{used.usd / completed:.4f}" if by == "agent" and completed and used.usd_micros else "",
    ]


def _json(row: "CostRow", completed: int | None) -> dict[str, Any]:
    """A row; with the number of completed runs also what one of them cost."""
    used = row.cost
    found = {
        "runs": row.runs,
        "answers": used.answers,
        "tokens": used.tokens,
        "usd": used.usd,
        "share": round(row.share, 4),
    }
    if completed:
        found |= {"usd_per_run": round(used.usd / completed, 6), "tokens_per_run": round(used.tokens / completed, 2)}
    return found
