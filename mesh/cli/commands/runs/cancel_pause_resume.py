"""What people want of runs: end them, hold them, let them go on. One named run at once; several only with --yes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from mesh.cli.framework.completion import types
from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import ago, counted, visible
from mesh.cli.views import run_view
from mesh.cli.views.switch_view import NOT_CONSUMED, current_user, describe_stop, resume_command, wait_until_consumed
from mesh.core.errors import InvalidInput, NotAccepted
from mesh.core.history.run_summary import Summary
from mesh.core.history.task_attempts import WAITING, WORKING
from mesh.core.history.timeline import History
from mesh.core.protocol.event import CANCELLED, PAUSED, RESUMED
from mesh.operations.runs import Runs

if TYPE_CHECKING:
    from mesh.adapters.ports import Appended, Log
    from mesh.core.run.control import Control, Switch

RUNS_MAX: Final = 1_000_000
RUNS_A_BATCH: Final = 500
SHOWN_MAX: Final = 20

RunName = Annotated[
    str | None, typer.Argument(metavar="ID", help="a run's id or its beginning, a request's id, or a subject")
]
TypeOption = Annotated[
    str | None, typer.Option(metavar="TYPE", help="every open run of this type instead", autocompletion=types)
]
AllOption = Annotated[bool, typer.Option("--all", help="every open run instead")]
WhyOption = Annotated[str, typer.Option(metavar="TEXT", help="goes into the history of the run")]
YesOption = Annotated[bool, typer.Option("--yes", help="with --type and --all: do it")]


class RunCommand(NamedTuple):
    """`kind` of the event, the word of the command, its mark, and the command that undoes it (empty: none does)."""

    kind: str
    word: str
    mark: Piece
    undo: str = ""


CANCEL: Final = RunCommand(CANCELLED, "cancel", ("○ ", "magenta"))
PAUSE: Final = RunCommand(PAUSED, "pause", ("‖ ", "yellow"), "resume")
RESUME: Final = RunCommand(RESUMED, "resume", ("▸ ", "green"), "pause")


async def run_command(
    session: Session, wish: RunCommand, run: str | None, *, type: str | None, every: bool, why: str, yes: bool
) -> int:
    """Do what one of the commands wants; answers its exit code."""
    chosen = [run is not None, type is not None, every]
    if sum(chosen) != 1:
        raise InvalidInput(
            "name one run, or say which ones",
            code="usage",
            where=f"mesh run {wish.word}",
            expected="ID, --type TYPE, or --all",
        )
    async with session.log() as log:
        if run is not None:
            return await _one(session, log, wish, run, why)
        return await _several(session, log, wish, type, why, yes=yes)


async def _one(session: Session, log: "Log", wish: RunCommand, name: str, why: str) -> int:
    from mesh.client import Mesh

    output, runs = session.output, Runs(log, session.topology)
    found = await runs.find(name)
    if found.ending:
        raise NotAccepted(
            f"it had ended {found.ending}: there is nothing to {wish.word}",
            code="already_terminal",
            where=f"run {found.run_id}",
        )
    _expect_change(wish, found)
    (place,) = await Mesh(log, session.topology).send_commands(wish.kind, [found.run_id], by=current_user(), why=why)
    known = await wait_until_consumed(log, session.topology, place)
    now = await runs.history(found.run_id) if known else None
    ending = "" if now is None else now.ending
    undo = f"mesh run {wish.undo} {run_view.id_of(found.run_id)}" if wish.undo and not ending else ""
    output.emit(
        {"run": found.run_id, "wish": wish.kind, "heard": known, "ending": ending or None, "undo": undo or None}
    )
    if ending and wish.kind != ending:
        output.print(run_view.state(ending), (f"  run {run_view.id_of(found.run_id)}: it was quicker", "dim"))
        return 1
    output.print(
        wish.mark, wish.kind if known else f"to be {wish.kind}", ("  run ", "dim"), run_view.id_of(found.run_id)
    )
    if not known:
        output.note(("note ", "yellow"), NOT_CONSUMED)
    if undo:
        output.note(("undo it: ", "dim"), undo)
    return 0


def _expect_change(wish: RunCommand, found: History) -> None:
    """Raises NotAccepted where an open run is already as it is wanted. One that the log no longer has whole may be."""
    if found.run is None or wish is CANCEL:
        return
    paused, id = found.run.trouble.paused, run_view.id_of(found.run_id)
    if wish is PAUSE and paused:
        raise NotAccepted(
            f"it is paused already, {ago(found.run.trouble.paused_ms)}: {visible(paused)}",
            code="already_paused",
            where=f"run {found.run_id}",
            remedy=f"`mesh run resume {id}` lets it go on",
        )
    if wish is RESUME and not paused:
        raise NotAccepted(
            "it is not paused: there is nothing to resume",
            code="not_paused",
            where=f"run {found.run_id}",
            remedy=f"`mesh run show {id}` tells what it waits for",
        )


async def _several(session: Session, log: "Log", wish: RunCommand, type: str | None, why: str, *, yes: bool) -> int:
    from mesh.client import Mesh

    def wanted(row: Summary) -> bool:
        changes = row.paused if wish is RESUME else not row.paused if wish is PAUSE else True
        return row.state == "open" and changes and (type is None or row.type == type)

    output = session.output
    rows = await Runs(log, session.topology).latest(limit=RUNS_MAX, since_ms=0, where=wanted)
    if not rows:
        output.note("No such runs are paused." if wish is RESUME else "No such runs are open.")
        return 0
    if not yes:
        for row in rows:
            output.emit(run_view.summary_json(row))
        shown: list[list[Piece]] = [
            [run_view.id_of(row.run_id), row.type, row.subject, (ago(row.opened_ms), "dim")] for row in rows[:SHOWN_MAX]
        ]
        output.table(("RUN", "TYPE", "SUBJECT", "STARTED"), shown)
        if len(rows) > SHOWN_MAX:
            output.note((f"… and {len(rows) - SHOWN_MAX:,} more", "dim"))
        told = counted(len(rows), "paused run" if wish is RESUME else "open run")
        output.note(f"{told} would be {wish.kind}; nothing was changed. ", ("--yes does it", "dim"))
        return 0
    mesh = Mesh(log, session.topology)
    places: list[Appended] = []
    for start in range(0, len(rows), RUNS_A_BATCH):
        ids = [row.run_id for row in rows[start : start + RUNS_A_BATCH]]
        places += await mesh.send_commands(wish.kind, ids, by=current_user(), why=why)
    known = await _all_heard(session, log, places)
    for row in rows:
        output.emit({"run": row.run_id, "wish": wish.kind, "heard": known})
    output.print(wish.mark, wish.kind if known else f"to be {wish.kind}", f"  {counted(len(rows), 'run')}")
    if not known:
        output.note(("note ", "yellow"), NOT_CONSUMED)
    return 0


async def _all_heard(session: Session, log: "Log", places: "Sequence[Appended]") -> bool:
    last = {place.partition: place for place in places}
    for place in last.values():
        if not await wait_until_consumed(log, session.topology, place):
            return False
    return True


def stops_of(history: History, control: "Control") -> "list[Switch]":
    """The stops that keep an open run from going on."""
    if history.ending:
        return []
    agents = dict.fromkeys(task.agent for task in history.tasks.values() if task.state in (WORKING, WAITING))
    stops = (control.stop_of(agent) for agent in agents)
    return list(dict.fromkeys(stop for stop in stops if stop is not None))


def note_standstill(session: Session, history: History, stops: "Sequence[Switch]") -> None:
    """Why an open run does not go on, and the commands that let it."""
    for stop in stops:
        session.output.note(("stands still: ", "yellow"), *describe_stop(stop), (f"  {resume_command(stop)}", "dim"))
    trouble = None if history.run is None or history.ending else history.run.trouble
    if trouble is not None and trouble.paused:
        command = f"  mesh run resume {run_view.id_of(history.run_id)}"
        since = f"paused {ago(trouble.paused_ms)}: "
        session.output.note(("stands still: ", "yellow"), since, trouble.paused, (command, "dim"))


def stops_json(stops: "Sequence[Switch]") -> list[dict[str, Any]]:
    """Stops in a JSON line."""
    return [{"switch": stop.key, "by": stop.by, "why": stop.why, "at_ms": stop.at_ms} for stop in stops]
