"""A what-if in output: one run as a tree of same, new, gone and refused tasks; a window as groups and totals."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.text import MESSAGE_CHARS_MAX, counted, visible
from mesh.cli.views.run_view import depth_shown, guided, id_of, state
from mesh.core.replay.endings import UNKNOWN, Ending, Totals, WindowWhatIf
from mesh.operations.replay.what_if_runs import RunComparison

SAME, NEW, GONE, REFUSED = "same", "new", "gone", "refused"
MARKS: Final = {SAME: " ", NEW: "+", GONE: "-", REFUSED: "✗"}
STYLES: Final = {SAME: "dim", NEW: "cyan", GONE: "magenta", REFUSED: "yellow"}
NEW_TEXT: Final = "it was not asked then: unknown from here"
HEAD_REMOVED: Final = "older records were removed from the inbox: the runs that began before are left out"
AGAIN_TEXT: Final = "no answer to it was recorded: unknown from here"


class _Row(NamedTuple):
    """A task in the tree of both runs. `id`: under the other topology, or as recorded if it is gone."""

    id: str
    parent: str
    agent: str
    mark: str
    note: str


def run_tree(output: Output, compared: RunComparison) -> None:
    """Print the endings and the tree of one run."""
    found = compared.found
    recorded = compared.replay.history
    rows = list(_rows(compared))
    before = found.before if found is not None else None
    after = None if found is None else found.after
    ending(output, "recorded", before, recorded.state)
    ending(output, "what if", after, "not opened")
    if found is not None and found.differs:
        output.print("            ", (visible(found.reason, MESSAGE_CHARS_MAX), "yellow"))
    output.print()
    below: dict[str, list[_Row]] = {}
    for row in rows:
        below.setdefault(row.parent, []).append(row)
    tree = list(guided(below, lambda row: row.id, "  ", depth_shown(output)))
    width = max((len(guide) + len(row.agent) for guide, row in tree), default=0)
    for guide, row in tree:
        gap = " " * (width - len(guide) - len(row.agent))
        mark: Piece = (f"{MARKS[row.mark]} {row.mark}", STYLES[row.mark])
        style = "" if row.mark == SAME else STYLES[row.mark]
        output.print((guide, "dim"), (row.agent, style), f"{gap}  ", mark, (_after(row.note), "dim"))
    if not tree:
        output.print(("  no agent works on it", "dim"))
    counts = {mark: sum(row.mark == mark for row in rows) for mark in MARKS}
    output.print()
    output.print("  ", ", ".join(f"{number} {mark}" for mark, number in counts.items()))


def _after(note: str) -> str:
    return f"  {visible(note, MESSAGE_CHARS_MAX)}" if note else ""


def ending(output: Output, name: str, found: Ending | None, otherwise: str) -> None:
    """Print one of the two endings of a run."""
    about: list[Piece] = [state(otherwise)] if found is None else [_state(found.ending), f"  {_numbers(found)}"]
    output.print((f"  {name.ljust(10)}", "dim"), *about)


def _state(name: str) -> Piece:
    return ("? unknown from here", "cyan") if name == UNKNOWN else state(name)


def _numbers(found: Ending) -> str:
    parts = [counted(found.tasks, "task"), counted(found.results, "result")]
    parts += [counted(found.refused, "refusal")] if found.refused else []
    parts += [f"${found.usd_micros / 1e6:.4f}"] if found.usd_micros else []
    parts += [counted(found.tokens, "token")] if found.tokens else []
    return " · ".join(parts)


def _rows(compared: RunComparison) -> Iterator[_Row]:
    matches, other, recorded = compared.matches, compared.history, compared.replay.history
    asked = () if compared.found is None else compared.found.asked
    refusals = {(refusal.agent, refusal.path): refusal.message for refusal in other.refusals}
    for task in other.tasks.values():
        same = task.id in matches.recorded_of
        if same and task.agent in asked and task.ended_ms is None:
            yield _Row(task.id, task.parent, task.agent, SAME, AGAIN_TEXT)
        else:
            yield _Row(task.id, task.parent, task.agent, SAME if same else NEW, "" if same else NEW_TEXT)
    for task in recorded.tasks.values():
        if task.id not in matches.other_of:
            parent = matches.other_of.get(task.parent) or (task.parent and f"gone {task.parent}")
            message = refusals.get((task.agent, task.path[:-1]), "")
            yield _Row(f"gone {task.id}", parent, task.agent, REFUSED if message else GONE, message)


def run_json(compared: RunComparison) -> dict[str, Any]:
    """The same as JSON-able values."""
    found = compared.found
    return {
        "run": compared.replay.history.run_id,
        "before": None if found is None or found.before is None else found.before._asdict(),
        "after": None if found is None else found.after._asdict(),
        "differs": found is not None and found.differs,
        "reason": found.reason if found is not None and found.differs else None,
        "unknown": [] if found is None else list(found.asked),
        "tasks": [
            {"task": row.id.removeprefix("gone "), "agent": row.agent, "mark": row.mark, "note": row.note or None}
            for row in _rows(compared)
        ],
        "refusals": [refusal._asdict() for refusal in compared.history.refusals],
        "gaps": [gap._asdict() for gap in compared.replay.gaps],
    }


# ------------------------------------------------------------------------------------------------------------- windows


def window(output: Output, found: WindowWhatIf) -> None:
    """Print groups of runs that end differently, and totals before and after."""
    compared = found.same + found.different
    mark: Piece = ("✓ ", "green") if not found.different else ("◐ ", "yellow")
    if compared:
        about = f"{counted(compared, 'run')}: {found.same:,} end the same, {found.different:,} differently"
        output.print(mark, about)
    else:
        output.print(("· ", "dim"), "no run can be compared")
    if found.unknown:
        output.print("  ", (f"{found.unknown:,} of these wait for an answer that was never recorded", "cyan"))
    for number, text in (
        (found.open, "without an outcome: open, or it was removed; they are not compared"),
        (found.outside, "endings whose request is outside the window or was removed"),
    ):
        if number:
            output.print("  ", (f"{number:,} {text}", "dim"))
    if found.head_removed:
        output.note((HEAD_REMOVED, "yellow"))
    if found.groups:
        output.print()
        groups = sorted(found.groups.items(), key=lambda entry: -entry[1].runs)
        output.table(
            (">RUNS", "RECORDED", "WHAT IF", "WHY", "FOR EXAMPLE"),
            [
                [f"{group.runs:,}", state(before), _state(after), why, (id_of(group.examples[0]), "dim")]
                for (before, after, why), group in groups
            ],
        )
    output.print()
    output.table(
        ("", ">RUNS", ">TASKS", ">USD", ">TOKENS", "ENDINGS"),
        [_totals("recorded", found.before), _totals("what if", found.after)],
    )


def _totals(name: str, totals: Totals) -> list[Piece]:
    endings = ", ".join(f"{number:,} {ending}" for ending, number in totals.endings.most_common())
    usd = f"{totals.usd_micros / 1e6:,.4f}" if totals.usd_micros else ""
    tokens = f"{totals.tokens:,}" if totals.tokens else ""
    return [(name, "dim"), f"{totals.runs:,}", f"{totals.tasks:,}", usd, tokens, endings]


def window_json(found: WindowWhatIf) -> dict[str, Any]:
    """The same as JSON-able values."""
    return {
        "runs": found.same + found.different,
        "same": found.same,
        "different": found.different,
        "unknown": found.unknown,
        "open": found.open,
        "outside": found.outside,
        "head_removed": found.head_removed,
        "before": _totals_json(found.before),
        "after": _totals_json(found.after),
        "groups": [
            {"before": before, "after": after, "reason": why, "runs": group.runs, "examples": group.examples}
            for (before, after, why), group in sorted(found.groups.items(), key=lambda entry: -entry[1].runs)
        ],
    }


def _totals_json(totals: Totals) -> dict[str, Any]:
    return {
        "runs": totals.runs,
        "tasks": totals.tasks,
        "usd": totals.usd_micros / 1e6,
        "tokens": totals.tokens,
        "endings": totals.endings,
    }
