"""The result of a check of the log: the first difference with both sides, what was checked, and JSON."""

from typing import TYPE_CHECKING

from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.text import counted
from mesh.cli.views.run_view import id_of
from mesh.core.verification.report import INVARIANTS, VerificationReport

if TYPE_CHECKING:
    from mesh.operations.verification import FirstViolation, VerifyResult


def result(output: Output, checked: "VerifyResult", run_id: str, where: str) -> None:
    """Print what was checked, and the first difference."""
    report = checked.report
    about = f"run {id_of(run_id)}" if run_id else counted(report.runs, "run")
    what = f"{counted(sum(report.records.values()), 'record')}, {about}"
    if checked.first is None and report.checked["I6"]:
        output.print(("✓ ", "green"), f"{what}: nothing diverges", (f"  {where}", "dim"))
    elif checked.first is None:
        output.print(
            ("· ", "dim"), f"{what}: nothing diverges, and no decision could be checked", (f"  {where}", "dim")
        )
    else:
        diverging = ", ".join(f"{code} {number:,}" for code, number in sorted(report.found.items()))
        output.print(("✗ ", "red"), f"{what}: {diverging}", (f"  {where}", "dim"))
        _show(output, checked.first)
    _print_checked(output, report)


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


def emit(output: Output, checked: "VerifyResult", run_id: str, records_per_s: int) -> None:
    """Emit each violation and a summary as JSON Lines."""
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
