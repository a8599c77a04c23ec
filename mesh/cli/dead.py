"""`mesh dead`: what could not be processed, byte for byte, and why."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import orjson
import typer

from mesh.cli.complete import agents
from mesh.cli.options import command, noun
from mesh.cli.screen import Piece
from mesh.cli.session import Session
from mesh.cli.story import id_of
from mesh.cli.text import ago, moment, seconds
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.event import rfc3339
from mesh.core.record import Record, TopicPartition, coordinates
from mesh.wire.ports import Log

ID_CHARS: Final = 12
EXPLAINED: Final = ("__dlq.errors.", "__connect.errors.", "mesh-dlq-")
app = noun("Show dead letters: what could not be processed, and why.")


@command(app, "list", example="mesh dead list --agent pricing --since 1h")
async def list_dead(
    session: Session,
    *,
    reason: Annotated[str | None, typer.Option(metavar="CODE", help="only with this reason code")] = None,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="only of this agent", autocompletion=agents)] = None,
    run: Annotated[str | None, typer.Option(metavar="ID", help="only of runs whose id begins so")] = None,
    since: Annotated[str | None, typer.Option(metavar="AGE", help="at most so old: 10m, 2h, 1d")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="at most so many")] = 50,
) -> None:
    """List dead letters, newest first."""
    since_ms = 0 if since is None else round((time.time() - seconds("--since", since)) * 1_000)
    found: list[Record] = []
    async with session.log() as log:
        async for record in _letters(log, session.topology.dead, since_ms):
            facts = _facts(record)
            if (
                (reason is None or facts["reason"] == reason)
                and (agent is None or facts["agent"] == agent)
                and (run is None or facts["run"].startswith(run))
            ):
                found.append(record)
    found.sort(key=lambda record: (-record.timestamp, -record.offset))
    rows: list[list[Piece]] = []
    for record in found[:limit]:
        facts = _facts(record)
        session.screen.emit({**facts, "at": rfc3339(record.timestamp), "bytes": len(record.value or b"")})
        shown = [facts["id"][:ID_CHARS], facts["reason"], facts["agent"], id_of(facts["run"])]
        rows.append([*shown, (ago(record.timestamp), "dim"), facts["message"]])
    if rows:
        session.screen.table(("ID", "REASON", "AGENT", "RUN", "AGE", "MESSAGE"), rows)
    else:
        session.screen.note("No dead letters.")
    if len(found) > limit:
        session.screen.note((f"… and {len(found) - limit:,} older ones: --limit {len(found)}", "dim"))


@command(app, "show", example="mesh dead show 3f2a")
async def show(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="its id or the beginning of it, or topic:partition:offset")],
) -> None:
    """Show one dead letter: why, whence, headers, bytes."""
    async with session.log() as log:
        record = await _find(log, session.topology.dead, id)
    facts, screen = _facts(record), session.screen
    headers = [(name, (value or b"").decode("utf-8", "backslashreplace")) for name, value in record.headers]
    value = record.value
    screen.emit(
        {
            **facts,
            "at": rfc3339(record.timestamp),
            "place": coordinates(record),
            "key": None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
            "headers": headers,
            "value": None if value is None else value.decode("utf-8", "backslashreplace"),
        }
    )
    screen.say((facts["reason"], "bold red"), f"  {facts['message']}")
    for name in ("id", "agent", "run", "task", "attempts", "origin", "class"):
        if facts[name]:
            screen.say((f"  {name:<10}", "dim"), f"{facts[name]}")
    screen.say(("  at        ", "dim"), moment(record.timestamp), (f"  {coordinates(record)}", "dim"))
    if facts["stack"]:
        screen.say()
        screen.say(("stack", "bold"))
        screen.document(facts["stack"], indent="  ")
    own = [(name, text) for name, text in headers if not name.startswith(EXPLAINED)]
    if own:
        screen.say()
        screen.say(("headers", "bold"))
        for name, text in own:
            screen.say((f"  {name}  ", "dim"), text)
    screen.say()
    screen.say(("value", "bold"), (f"  {len(value or b''):,} bytes", "dim"))
    screen.document(_pretty(value), indent="  ")
    if facts["run"]:
        screen.note(("its run: ", "dim"), f"mesh run show {id_of(facts['run'])}")


async def _letters(log: Log, topic: str, since_ms: int) -> AsyncIterator[Record]:
    bounds = await log.bounds(topic)
    firsts = await log.offsets_at(topic, since_ms) if since_ms > 0 else {n: b.start for n, b in bounds.items()}
    wanted = {TopicPartition(topic, n): b.end for n, b in bounds.items() if firsts[n] < b.end}
    if not wanted:
        return
    reader = log.reader({place: firsts[place.partition] for place in wanted})
    try:
        while any(reader.position(place) < end for place, end in wanted.items()):
            for record in await reader.poll(records_max=1_000, wait_ms=500):
                yield record
    finally:
        await reader.close()


async def _find(log: Log, topic: str, name: str) -> Record:
    found: dict[str, Record] = {}
    async for record in _letters(log, topic, 0):
        id = _facts(record)["id"]
        if id.startswith(name) or coordinates(record) == name:
            found[id or coordinates(record)] = record
    if not found:
        raise NotFound(f"no dead letter {name[:128]!r}", where=topic, remedy="`mesh dead list` shows them")
    exact = found.get(name)
    if exact is None and len(found) > 1:
        shown = ", ".join(list(found)[:5])
        raise InvalidInput(
            f"{len(found)} dead letters begin so",
            code="ambiguous",
            where=name,
            got=shown,
            remedy="Give more of the id",
        )
    return exact or next(iter(found.values()))


def _facts(record: Record) -> dict[str, Any]:
    """Why it is here, from its headers; the last one of a name counts."""
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
    place = [headers.get(f"__dlq.errors.{part}", "") for part in ("topic", "partition", "offset")]
    reason = headers.get("mesh-dlq-reason", "")
    return {
        "id": headers.get("mesh-dlq-id", ""),
        "reason": reason,
        "agent": headers.get("mesh-dlq-agent", ""),
        "run": headers.get("mesh-dlq-run", ""),
        "task": headers.get("mesh-dlq-task", ""),
        "attempts": headers.get("__dlq.errors.delivery.count", ""),
        "origin": ":".join(part for part in place if part),
        "message": headers.get("__dlq.errors.message", "").removeprefix(f"{reason}: "),
        "class": headers.get("__connect.errors.exception.class.name", ""),
        "stack": headers.get("__connect.errors.exception.stacktrace", ""),
    }


def _pretty(value: bytes | None) -> str:
    if value is None:
        return "(no value)"
    try:
        return orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONDecodeError:
        return value.decode("utf-8", "backslashreplace")
