"""`mesh verify`: check the log against the invariants."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.session import Session, short
from mesh.cli.framework.text import counted
from mesh.cli.views.run_view import id_of
from mesh.core.verification.report import INVARIANTS, VerificationReport

if TYPE_CHECKING:
    from mesh.operations.verification import FirstViolation, VerifyResult

DIFFERS = 1
app = verb()


@command(app, "verify", example="mesh verify --run 3f2a")
async def verify(
    session: Session,
    *,
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="only this run")] = None,
) -> int:
    """Check the log: decide the inbox again, and compare the result with the published records.

    The command changes nothing, and the mesh may be up meanwhile. Exit code 1 if something differs; the first
    difference is shown with both sides.
    """
    from mesh.adapters.clock import SystemClock
    from mesh.operations.runs import Runs
    from mesh.operations.verification import verify as check

    output = session.output
    began = time.monotonic()
    total = 0

    def read(records: int) -> None:
        nonlocal total
        total += records
        output.update(f"{total:,} records")

    async with session.read_log() as log:
        run_id = "" if run is None else (await Runs(log, session.topology).find(run)).run_id
        with output.status("reading"):
            checked = await check(log, session.topology, SystemClock(), run_id=run_id, read=read)
        where = short(log.url)
    took_s = max(time.monotonic() - began, 0.001)
    _emit(output, checked, run_id, round(total / took_s))
    report = checked.report
    records = sum(report.records.values())
    about = f"run {id_of(run_id)}" if run_id else counted(report.runs, "run")
    what = f"{counted(records, 'record')}, {about}"
    if checked.first is None:
        output.print(("✓ ", "green"), f"{what}: nothing diverges", (f"  {where}", "dim"))
    else:
        diverging = ", ".join(f"{code} {number:,}" for code, number in sorted(report.found.items()))
        output.print(("✗ ", "red"), f"{what}: {diverging}", (f"  {where}", "dim"))
        _show(output, checked.first)
    _print_checked(output, report)
    output.note((f"{total:,} records read, {total / took_s:,.0f} a second", "dim"))
    return 0 if checked.first is None else DIFFERS


def _show(output: Output, first: "FirstViolation") -> None:
    """Print the first violation, with both sides."""
    violation = first.violation
    output.print()
    output.print((violation.invariant, "bold red"), f"  {violation.what}")
    for name, text in (("at", violation.where), ("published", violation.published), ("run", id_of(violation.run_id))):
        if (text and text != violation.where) or name == "at":
            output.print((f"  {name:<10}", "dim"), text)
    sides = [(d.place, d.expected, d.got) for d in first.differences]
    if not sides and (violation.expected or violation.got):
        sides = [("", violation.expected, violation.got)]
    for place, expected, got in sides:
        if place:
            output.print(f"  {place}")
        for name, text in (("expected", expected), ("got", got)):
            if text or place:
                output.print((f"    {name:<9}", "dim"), text)
    output.print()


def _print_checked(output: Output, report: VerificationReport) -> None:
    rows: list[list[Piece]] = []
    for code, meaning in INVARIANTS.items():
        if report.checked[code] or report.found[code]:
            found: Piece = (f"{report.found[code]:,}", "red") if report.found[code] else ("0", "dim")
            rows.append([code, f"{report.checked[code]:,}", found, (meaning, "dim")])
    output.table(("", ">CHECKED", ">DIVERGE", "WHAT HOLDS"), rows)
    for reason, number in sorted(report.unchecked.items()):
        output.note((f"not checked: {number:,} {reason}", "dim"))


def _emit(output: Output, checked: "VerifyResult", run_id: str, records_per_s: int) -> None:
    report = checked.report
    for n, violation in enumerate(report.violations):
        sides = checked.first.differences if n == 0 and checked.first is not None else []
        output.emit(
            {
                "invariant": violation.invariant,
                "where": violation.where,
                "what": violation.what,
                "expected": violation.expected,
                "got": violation.got,
                "run": violation.run_id,
                "published": violation.published,
                "differences": [difference._asdict() for difference in sides],
            }
        )
    output.emit(
        {
            "ok": report.good,
            "run": run_id or None,
            "runs": report.runs,
            "open": report.open,
            "endings": report.endings,
            "records": report.records,
            "copies": report.copies,
            "checked": report.checked,
            "unchecked": report.unchecked,
            "violations": report.found,
            "topologies": checked.topologies,
            "records_per_s": records_per_s,
        }
    )
