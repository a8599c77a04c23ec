"""`mesh board`: read, write and watch the blackboard; rebuild it after data loss."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
import typer

from mesh.adapters.ports import ABSENT, ANY, Board, Entry
from mesh.cli.framework.options import command, noun
from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.session import Session, short
from mesh.cli.framework.standard_streams import read_all_input
from mesh.cli.framework.text import ago, clock, counted, moment, visible
from mesh.cli.views.switch_view import user_name
from mesh.core.errors import InvalidInput, MeshError, NotFound
from mesh.core.protocol.event import rfc3339

if TYPE_CHECKING:
    from mesh.core.board.changelog import BoardRestart
    from mesh.runtime.board_rebuild import Rebuild, RebuildPlan, RebuildStep

SHOWN_MAX: Final = 50
VALUE_CHARS_MAX: Final = 40

app = noun("Read, write and watch the blackboard.")
Key = Annotated[str, typer.Argument(metavar="KEY", help="like orders/sold/sku-007")]
Pattern = Annotated[str, typer.Argument(metavar="PATTERN", help="* any run of characters, ? one")]


@command(app, "keys", example="mesh board keys 'orders/*'")
async def keys(session: Session, pattern: Pattern = "*") -> None:
    """List the keys that have a value."""
    async with session.board() as board:
        found = await board.keys(pattern)
    for key in found:
        session.output.emit({"key": key})
        session.output.print(key)
    if not found:
        session.output.note("No such keys.")


@command(app, "get", example="mesh board get orders/sold/sku-007")
async def get(session: Session, key: Key) -> None:
    """Show the value of a key, with its version and who wrote it."""
    async with session.board() as board:
        entry = await board.get(key)
    if entry is None:
        raise _not_found(session, f"the key {key!r} has no value")
    session.output.emit(_json(entry))
    session.output.document(orjson.dumps(orjson.loads(entry.value), option=orjson.OPT_INDENT_2).decode())
    session.output.note((f"version {entry.version}, {ago(entry.at_ms)}, by {entry.by or 'unknown'}", "dim"))


@command(app, "put", example="mesh board put limits/orders '{\"per_minute\": 30}'")
async def put(
    session: Session,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="JSON|-", help="a JSON document, or - for standard input")],
    *,
    expect: Annotated[str | None, typer.Option(metavar="VERSION", help="only if the key has this version")] = None,
    absent: Annotated[bool, typer.Option("--absent", help="only if the key has no value")] = False,
) -> None:
    """Write a value.

    With --expect or --absent, a concurrent write makes the command fail with exit code 5. The value of a board outside
    the log's own file is also written to the log, for `mesh board rebuild`.
    """
    if expect is not None and absent:
        raise InvalidInput("--expect and --absent exclude each other", code="usage", where="mesh board put")
    data = read_all_input() if value == "-" else value.encode("utf-8", "surrogateescape")
    async with session.board(create=True) as board:
        entry = await board.put(key, data, expect=ABSENT if absent else expect or ANY, by=f"cli/{user_name()}")
        await _mirror(session, board, entry)
    session.output.emit(_json(entry))
    session.output.print(("written  ", "green"), entry.key, (f"  version {entry.version}", "dim"))


@command(app, "history", example="mesh board history orders/sold/sku-007 --limit 10")
async def history(
    session: Session,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="like orders/sold/sku-007; none: restarts of the board")
    ] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="the largest number")] = 20,
) -> None:
    """Show past values of a key, newest first; without a key, the restarts of the board.

    The board restarts when its store restarts, fails over, or is restored from a copy. Writes from shortly before may
    then be missing; `mesh board rebuild` shows them.
    """
    if key is None:
        await _restarts(session, limit)
        return
    async with session.board() as board:
        entries = await board.history(key, limit=limit)
    if not entries:
        raise _not_found(session, f"the key {key!r} never had a value")
    session.output.listing(("VERSION", "AGE", "BY", "VALUE"), entries, _entry_row, _json)


def _entry_row(entry: Entry) -> list[Piece]:
    return [entry.version, (ago(entry.at_ms), "dim"), entry.by, entry.value.decode("utf-8", "replace")]


def _not_found(session: Session, what: str) -> NotFound:
    where = short(session.settings.board or session.settings.log)
    return NotFound(what, where=where, remedy="`mesh board keys` lists all")


async def _restarts(session: Session, limit: int) -> None:
    from mesh.adapters.clock import SystemClock
    from mesh.runtime.board_changelog import is_mirrored, read_mirror

    async with session.board() as board, session.log() as log:
        found: list[BoardRestart] = []
        if is_mirrored(log, board):
            found = (await read_mirror(log, SystemClock(), session.topology, values=False)).restarts
        now = await board.incarnation()
    session.output.listing(
        ("EPOCH", "NOTICED", "AFTER"),
        found[-limit:][::-1],
        lambda restart: [restart.new, (moment(restart.at_ms), "dim"), (f"after {restart.old}", "dim")],
        lambda restart: {"new": restart.new, "old": restart.old, "noticed": rfc3339(restart.at_ms)},
    )
    if found:
        session.output.note(("writes that may be lost: ", "dim"), "mesh board rebuild")
    else:
        session.output.note(f"No restart of the board is known; its epoch is {now}.")


@command(app, "rebuild", example="mesh board rebuild --yes")
async def rebuild(
    session: Session,
    pattern: Pattern = "*",
    *,
    yes: Annotated[bool, typer.Option("--yes", help="write; without it only shows what would be written")] = False,
) -> None:
    """Restore lost values of the board from its changes on the log.

    Without --yes the command shows the keys that are missing or older than on the log, and changes nothing. Newer
    values on the board are never overwritten. After an interruption, the same command writes exactly the rest. A
    running worker does the same when the board comes back empty or older; until then, counters and lists are refused.
    """
    from mesh.adapters.clock import SystemClock
    from mesh.runtime.board_changelog import is_mirrored
    from mesh.runtime.board_rebuild import Rebuild

    async with session.board(create=True) as board, session.log() as log:
        if not is_mirrored(log, board):
            session.output.note("The board lies in the log's own file and is lost only with it: nothing to rebuild.")
            return
        incarnation = await board.incarnation()
        rebuild = Rebuild(log, board, session.topology, SystemClock())
        with session.output.status("reading the board's changes"):
            plan = await rebuild.plan(
                pattern,
                on_progress=lambda done, of: session.output.update(f"{done:,} of {counted(of, 'key')} compared"),
            )
        if yes:
            await _write(session, rebuild, plan)
            if pattern == "*":
                await board.mark_complete(incarnation)
        else:
            _show(session, plan)


def _show(session: Session, plan: "RebuildPlan") -> None:
    output, missing = session.output, plan.missing
    if missing:
        output.print(("would be written", "bold"))
        heads = ("KEY", "VALUE", "INSTEAD OF", "WRITTEN", "BY")
        output.listing(heads, missing, _row, lambda step: _step_json(step, "write"), rows_max=SHOWN_MAX)
    _note_newer(session, plan)
    if missing:
        output.note(f"{counted(len(missing), 'key')} of {len(plan.steps):,} would be written; --yes does it")
    else:
        _note_complete(session, plan)


def _row(step: "RebuildStep") -> list[Piece]:
    stands = "nothing" if step.stored.value is None else _value_text(step.stored.value)
    return [step.change.key, _value_text(step.change.value), (stands, "dim"), ago(step.change.at_ms), step.change.by]


def _note_newer(session: Session, plan: "RebuildPlan") -> None:
    from mesh.core.board.changelog import NEWER

    for step in plan.steps:
        if step.verdict == NEWER:
            session.output.emit(_step_json(step, "newer"))
    if newer := plan.count(NEWER):
        session.output.note(f"{counted(newer, 'key')} left alone: the board has newer values")


def _note_complete(session: Session, plan: "RebuildPlan") -> None:
    what = (
        "Nothing on the log about the board" if not plan.steps else f"All {counted(len(plan.steps), 'key')} are there"
    )
    session.output.note(f"{what}: nothing to write.")


async def _write(session: Session, rebuild: "Rebuild", plan: "RebuildPlan") -> None:
    output, missing, written, left = session.output, plan.missing, 0, 0
    _note_newer(session, plan)
    if not missing:
        _note_complete(session, plan)
        return
    try:
        with output.progress(len(missing)) as bar:
            async with aclosing(rebuild.write(missing)) as done:
                async for one in done:
                    entry = one.entry
                    version = "" if entry is None else entry.version
                    output.emit({"key": one.step.change.key, "written": entry is not None, "version": version})
                    written, left = written + (entry is not None), left + (entry is None)
                    bar.advance(1, f"{written + left:,} of {len(missing):,} keys")
    except BaseException:
        output.note(f"{counted(written, 'key')} written of {len(missing):,}; the same command writes exactly the rest")
        raise
    output.print(("✓ ", "green"), f"{counted(written, 'key')} written")
    if left:
        output.note(f"{counted(left, 'key')} left alone: they were written meanwhile")


async def _mirror(session: Session, board: Board, entry: Entry) -> None:
    """Write the change to the log. The board has the value already, so an error here is only noted."""
    from mesh.core.board.changelog import BoardChange
    from mesh.runtime.board_changelog import is_mirrored, mirror_changes

    if not session.settings.board:
        return  # the board is in the log's own file
    try:
        async with session.log() as log:
            if is_mirrored(log, board):
                change = BoardChange(entry.key, entry.value, entry.version, entry.by, "", entry.at_ms)
                await mirror_changes(log, session.topology, [change])
    except MeshError as error:
        session.output.note((f"the value is not mirrored on the log: {error}", "yellow"))


@command(app, "watch", example="mesh board watch 'risk/*' --json")
async def watch(
    session: Session,
    pattern: Pattern = "*",
    *,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, metavar="N", help="stop after N changes")] = None,
) -> None:
    """Show changes as they happen."""
    left = count
    async with session.board() as board, aclosing(await board.watch(pattern)) as changes:
        session.output.note(("watching the board; Ctrl-C ends", "dim"))
        async for entry in changes:
            session.output.emit(_json(entry))
            _line(session.output, entry)
            left = None if left is None else left - 1
            if left == 0:
                return


def _line(output: Output, entry: Entry) -> None:
    value = entry.value.decode("utf-8", "replace")
    output.print((f"{clock(entry.at_ms)}  ", "dim"), (entry.key, "bold"), f"  {value}", (f"  {entry.by}", "dim"))


def _json(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "value": orjson.loads(entry.value),
        "version": entry.version,
        "at": rfc3339(entry.at_ms),
        "by": entry.by,
    }


def _step_json(step: "RebuildStep", plan: str) -> dict[str, Any]:
    stands = step.stored.value
    return {
        "key": step.change.key,
        "plan": plan,
        "value": orjson.loads(step.change.value),
        "stands": None if stands is None else orjson.loads(stands),
        "version": step.change.version,
        "at": rfc3339(step.change.at_ms),
        "by": step.change.by,
    }


def _value_text(value: bytes) -> str:
    return visible(value.decode("utf-8", "replace"), VALUE_CHARS_MAX)
