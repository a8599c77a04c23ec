"""`mesh run cancel`, `pause` and `resume`: one named run at once; several runs only with --yes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import typer

from mesh.cli.framework.completion import types
from mesh.cli.framework.options import command
from mesh.cli.framework.output import Piece
from mesh.cli.framework.run_finding import find_runs, list_runs
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import ago, counted, visible
from mesh.cli.views import run_view
from mesh.cli.views.switch_view import NOT_CONSUMED, current_user, describe_stop, resume_command, wait_until_consumed
from mesh.core.errors import InvalidInput, NotAccepted
from mesh.core.history.run_query import RunQuery
from mesh.core.history.task_attempts import WAITING, WORKING
from mesh.core.history.timeline import History
from mesh.core.protocol.event import CANCELLED, PAUSED, RESUMED

if TYPE_CHECKING:
    from mesh.adapters.ports import Appended, Log
    from mesh.core.run.control import Control, Switch

RUNS_MAX: Final = 1_000_000
BATCH_RUNS: Final = 500
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
    """A command on runs: the kind of its event, its word, its mark, and the command that undoes it, if there is one."""

    kind: str
    word: str
    mark: Piece
    undo: str
    example: str
    help: str


CANCEL: Final = RunCommand(
    CANCELLED,
    "cancel",
    ("○ ", "magenta"),
    "",
    'mesh run cancel 3f2a --why "sent twice"',
    """Cancel a run: it ends at once, with the results that it has.

    Its running calls are cancelled. Several runs (--type, --all) are only listed without --yes.""",
)
PAUSE: Final = RunCommand(
    PAUSED,
    "pause",
    ("‖ ", "yellow"),
    "resume",
    'mesh run pause 3f2a --why "the supplier is down"',
    """Pause a run: running calls may end, and no new one begins.

    Its deadline stands still meanwhile. Several runs (--type, --all) are only listed without --yes.""",
)
RESUME: Final = RunCommand(
    RESUMED,
    "resume",
    ("▸ ", "green"),
    "pause",
    "mesh run resume 3f2a",
    """Resume a paused run.

    Several runs (--type, --all: the paused ones) are only listed without --yes.""",
)


def add_commands(app: typer.Typer) -> None:
    """Register `cancel`, `pause` and `resume`."""
    for which in (CANCEL, PAUSE, RESUME):
        _add(app, which)


def _add(app: typer.Typer, which: RunCommand) -> None:
    async def change(
        session: Session,
        run: RunName = None,
        *,
        type: TypeOption = None,
        every: AllOption = False,
        why: WhyOption = "",
        yes: YesOption = False,
    ) -> int:
        if sum((run is not None, type is not None, every)) != 1:
            where, expected = f"mesh run {which.word}", "ID, --type TYPE, or --all"
            raise InvalidInput("name one run, or several", code="usage", where=where, expected=expected)
        async with session.log() as log:
            if run is not None:
                return await _change_one(session, log, which, run, why)
            return await _change_several(session, log, which, type, why, yes=yes)

    change.__doc__ = which.help
    command(app, which.word, example=which.example)(change)


async def _change_one(session: Session, log: "Log", which: RunCommand, name: str, why: str) -> int:
    from mesh.client import Mesh

    output = session.output
    found = await find_runs(session, log, lambda runs: runs.find(name))
    if found.ending:
        raise NotAccepted(
            f"it had ended {found.ending}: there is nothing to {which.word}",
            code="already_terminal",
            where=f"run {found.run_id}",
        )
    _require_change(which, found)
    mesh, by = Mesh(log, session.topology), current_user()
    (position,) = await mesh.send_commands(which.kind, [found.run_id], by=by, why=why)
    known = await wait_until_consumed(log, session.topology, position)
    now = await find_runs(session, log, lambda runs: runs.history(found.run_id)) if known else None
    ending = "" if now is None else now.ending
    undo = f"mesh run {which.undo} {run_view.id_of(found.run_id)}" if which.undo and not ending else ""
    output.emit(
        {"run": found.run_id, "wish": which.kind, "heard": known, "ending": ending or None, "undo": undo or None}
    )
    if ending and which.kind != ending:
        output.print(run_view.state(ending), (f"  run {run_view.id_of(found.run_id)}: it ended before", "dim"))
        return 1
    output.print(
        which.mark, which.kind if known else f"to be {which.kind}", ("  run ", "dim"), run_view.id_of(found.run_id)
    )
    if not known:
        output.note(("note ", "yellow"), NOT_CONSUMED)
    if undo:
        output.note(("undo it: ", "dim"), undo)
    return 0


def _require_change(which: RunCommand, found: History) -> None:
    """Raise NotAccepted if an open run is in the wanted state already. Runs that the log has in part may be."""
    if found.run is None or which is CANCEL:
        return
    paused, id = found.run.trouble.paused, run_view.id_of(found.run_id)
    if which is PAUSE and paused:
        raise NotAccepted(
            f"it is paused already, {ago(found.run.trouble.paused_ms)}: {visible(paused)}",
            code="already_paused",
            where=f"run {found.run_id}",
            remedy=f"`mesh run resume {id}` resumes it",
        )
    if which is RESUME and not paused:
        raise NotAccepted(
            "it is not paused: there is nothing to resume",
            code="not_paused",
            where=f"run {found.run_id}",
            remedy=f"`mesh run show {id}` shows what it waits for",
        )


async def _change_several(
    session: Session, log: "Log", which: RunCommand, type: str | None, why: str, *, yes: bool
) -> int:
    from mesh.client import Mesh

    output = session.output
    query = RunQuery(state="paused" if which is RESUME else "open", type=type or "")
    rows = await list_runs(session, log, query, limit=RUNS_MAX, where=None)
    rows = [row for row in rows if which is not PAUSE or not row.paused]
    if not rows:
        output.note("No such runs are paused." if which is RESUME else "No such runs are open.")
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
        runs = counted(len(rows), "paused run" if which is RESUME else "open run")
        output.note(f"{runs} would be {which.kind}; nothing was changed. ", ("--yes does it", "dim"))
        return 0
    mesh = Mesh(log, session.topology)
    positions: list[Appended] = []
    for start in range(0, len(rows), BATCH_RUNS):
        ids = [row.run_id for row in rows[start : start + BATCH_RUNS]]
        positions += await mesh.send_commands(which.kind, ids, by=current_user(), why=why)
    known = await _all_consumed(session, log, positions)
    for row in rows:
        output.emit({"run": row.run_id, "wish": which.kind, "heard": known})
    output.print(which.mark, which.kind if known else f"to be {which.kind}", f"  {counted(len(rows), 'run')}")
    if not known:
        output.note(("note ", "yellow"), NOT_CONSUMED)
    return 0


async def _all_consumed(session: Session, log: "Log", positions: "Sequence[Appended]") -> bool:
    last = {position.partition: position for position in positions}
    for position in last.values():
        if not await wait_until_consumed(log, session.topology, position):
            return False
    return True


def stops_of(history: History, control: "Control") -> "list[Switch]":
    """The stops of the agents whose tasks an open run waits for."""
    if history.ending:
        return []
    agents = dict.fromkeys(task.agent for task in history.tasks.values() if task.state in (WORKING, WAITING))
    stops = (control.stop_of(agent) for agent in agents)
    return list(dict.fromkeys(stop for stop in stops if stop is not None))


def note_standstill(session: Session, history: History, stops: "Sequence[Switch]") -> None:
    """Note why an open run does not go on, and the commands that resume it."""
    for stop in stops:
        session.output.note(("stands still: ", "yellow"), *describe_stop(stop), (f"  {resume_command(stop)}", "dim"))
    trouble = None if history.run is None or history.ending else history.run.trouble
    if trouble is not None and trouble.paused:
        command = f"  mesh run resume {run_view.id_of(history.run_id)}"
        since = f"paused {ago(trouble.paused_ms)}: "
        session.output.note(("stands still: ", "yellow"), since, trouble.paused, (command, "dim"))


def stops_json(stops: "Sequence[Switch]") -> list[dict[str, Any]]:
    """Stops as JSON-able values."""
    return [{"switch": stop.key, "by": stop.by, "why": stop.why, "at_ms": stop.at_ms} for stop in stops]
