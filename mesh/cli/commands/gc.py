"""`mesh gc`: remove records past their retention."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import counted, span

if TYPE_CHECKING:
    from mesh.operations.retention import Expired

app = verb()


@command(app, "gc", example="mesh gc --yes")
async def gc(
    session: Session,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="remove; without it only shows what would be removed")] = False,
) -> None:
    """Remove records that are older than topics.yaml keeps them.

    `mesh.retention` has the times for inbox, outcomes, dead letters and tasks, `topics.NAME.retention` that of a topic.
    Unread records are kept, and so are records that a restore of the inbox needs.
    """
    from mesh.adapters.clock import SystemClock
    from mesh.app.wiring import topic_specs
    from mesh.operations.retention import find_expired, remove

    output, topology = session.output, session.topology
    async with session.log() as log:
        expired = await find_expired(log, topology, topic_specs(topology), SystemClock().now_ms())
        if yes:
            with output.progress(len(expired)) as bar:
                for one in expired:
                    await remove(log, one)
                    bar.advance(1, one.partition.topic)
        size = _file_bytes(log.url)
    _show(session, expired, removed=yes)
    total = sum(one.until - one.start for one in expired)
    if not expired:
        output.note("No record is past its retention.")
    elif yes:
        output.print(("✓ ", "green"), f"{counted(total, 'record')} removed", (f"  {size}", "dim"))
    else:
        output.note(f"{counted(total, 'record')} would be removed; --yes removes them")


def _show(session: Session, expired: "list[Expired]", *, removed: bool) -> None:
    counts: Counter[str] = Counter()
    retentions: dict[str, int] = {}
    for one in expired:
        counts[one.partition.topic] += one.until - one.start
        retentions[one.partition.topic] = one.retention_ms
    rows: list[list[Piece]] = []
    for topic, count in counts.items():
        fields = {"topic": topic, "records": count, "retention_ms": retentions[topic], "removed": removed}
        session.output.emit(fields)
        rows.append([topic, f"{count:,}", span(retentions[topic])])
    if rows:
        session.output.table(("TOPIC", ">RECORDS", ">KEPT FOR"), rows)


def _file_bytes(url: str) -> str:
    """The size of an embedded log's file; "" for another log."""
    scheme, _, path = url.partition(":")
    return f"{Path(path).stat().st_size / 1_048_576:,.1f} MiB in {path}" if scheme == "sqlite" else ""
