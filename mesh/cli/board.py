"""`mesh board`: the blackboard: read it, write it, watch it."""

import getpass
import sys
from contextlib import aclosing
from typing import Annotated, Any

import orjson
import typer

from mesh.cli.options import command, noun
from mesh.cli.screen import Piece, Screen
from mesh.cli.session import Session, short
from mesh.cli.text import ago, clock
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.event import rfc3339
from mesh.wire.ports import ABSENT, ANY, Entry

app = noun("Read, write and watch the blackboard.")
Key = Annotated[str, typer.Argument(metavar="KEY", help="like orders/sold/sku-007")]
Pattern = Annotated[str, typer.Argument(metavar="PATTERN", help="* any run of characters, ? one")]


@command(app, "keys", example="mesh board keys 'orders/*'")
async def keys(session: Session, pattern: Pattern = "*") -> None:
    """List the keys that have a value."""
    async with session.board() as board:
        found = await board.keys(pattern)
    for key in found:
        session.screen.emit({"key": key})
        session.screen.say(key)
    if not found:
        session.screen.note("No such keys.")


@command(app, "get", example="mesh board get orders/sold/sku-007")
async def get(session: Session, key: Key) -> None:
    """Show the value of a key, with its version and who wrote it."""
    async with session.board() as board:
        entry = await board.get(key)
    if entry is None:
        raise NotFound(
            f"nothing stands at {key!r}",
            where=short(session.settings.board or session.settings.log),
            remedy="`mesh board keys` lists all",
        )
    session.screen.emit(_json(entry))
    value = orjson.dumps(orjson.loads(entry.value), option=orjson.OPT_INDENT_2).decode()
    session.screen.document(value)
    session.screen.note((f"version {entry.version}, {ago(entry.at_ms)}, by {entry.by or 'nobody named'}", "dim"))


@command(app, "put", example="mesh board put limits/orders '{\"per_minute\": 30}'")
async def put(
    session: Session,
    key: Key,
    value: Annotated[str, typer.Argument(metavar="JSON|-", help="a JSON document, or - for standard input")],
    *,
    expect: Annotated[str | None, typer.Option(metavar="VERSION", help="only if this version stands")] = None,
    absent: Annotated[bool, typer.Option("--absent", help="only if nothing stands there")] = False,
) -> None:
    """Write a value.

    With --expect or --absent only if nobody came between; else exit code 5.
    """
    if expect is not None and absent:
        raise InvalidInput("--expect and --absent exclude each other", code="usage", where="mesh board put")
    data = sys.stdin.buffer.read() if value == "-" else value.encode("utf-8", "surrogateescape")
    async with session.board(create=True) as board:
        entry = await board.put(key, data, expect=ABSENT if absent else expect or ANY, by=f"cli/{_user()}")
    session.screen.emit(_json(entry))
    session.screen.say(("written  ", "green"), entry.key, (f"  version {entry.version}", "dim"))


@command(app, "history", example="mesh board history orders/sold/sku-007 --limit 10")
async def history(
    session: Session,
    key: Key,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1_000, metavar="N", help="at most so many")] = 20,
) -> None:
    """Show past values, newest first."""
    async with session.board() as board:
        entries = await board.history(key, limit=limit)
    if not entries:
        raise NotFound(
            f"nothing ever stood at {key!r}",
            where=short(session.settings.board or session.settings.log),
            remedy="`mesh board keys` lists all",
        )
    rows: list[list[Piece]] = []
    for entry in entries:
        session.screen.emit(_json(entry))
        value = entry.value.decode("utf-8", "replace")
        rows.append([entry.version, (ago(entry.at_ms), "dim"), entry.by, value])
    session.screen.table(("VERSION", "AGE", "BY", "VALUE"), rows)


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
        session.screen.note(("watching the board; Ctrl-C ends", "dim"))
        async for entry in changes:
            session.screen.emit(_json(entry))
            _line(session.screen, entry)
            left = None if left is None else left - 1
            if left == 0:
                return


def _line(screen: Screen, entry: Entry) -> None:
    value = entry.value.decode("utf-8", "replace")
    screen.say((f"{clock(entry.at_ms)}  ", "dim"), (entry.key, "bold"), f"  {value}", (f"  {entry.by}", "dim"))


def _json(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "value": orjson.loads(entry.value),
        "version": entry.version,
        "at": rfc3339(entry.at_ms),
        "by": entry.by,
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
