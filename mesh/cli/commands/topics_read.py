"""`mesh topics read`: the records of any topics, decoded."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from mesh.cli.framework.completion import agents, types
from mesh.cli.framework.options import command
from mesh.cli.framework.run_finding import find_runs
from mesh.cli.framework.selectors import (
    FromOption,
    SinceOption,
    ToOption,
    UntilOption,
    WhereOption,
    glob,
    places,
    time_span,
    topic_names,
    where,
)
from mesh.cli.framework.session import Session
from mesh.cli.views import record_view
from mesh.core.errors import InvalidInput
from mesh.core.ingress.foreign_events import event_in
from mesh.core.protocol.record_json import record_json
from mesh.core.selection.record_filter import RecordFilter

if TYPE_CHECKING:
    from mesh.adapters.ports import ReadLog
    from mesh.operations.topic_reading import Found, Spans, TopicRange

RECORDS_MAX = 1_000_000
TAIL_MAX = 100_000


def add_read(app: typer.Typer) -> None:
    """Register the command."""
    command(app, "read", example="mesh topics read inbox --since 10m --type order.placed")(read)


async def read(
    session: Session,
    topics: Annotated[list[str], typer.Argument(metavar="TOPIC...", help="any topics; `inbox` is mesh.inbox")],
    *,
    start: FromOption = None,
    end: ToOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    run: Annotated[
        str | None, typer.Option(metavar="ID", help="only of this run: its id, a request's id, or a subject")
    ] = None,
    type: Annotated[
        str | None, typer.Option(metavar="TYPE", help="only this type of event", autocompletion=types)
    ] = None,
    agent: Annotated[
        str | None, typer.Option(metavar="NAME", help="only for this agent, or from it", autocompletion=agents)
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="GLOB", help="only keys that match: o-*")] = None,
    condition: WhereOption = None,
    tail: Annotated[int | None, typer.Option(min=1, max=TAIL_MAX, metavar="N", help="the last N of them")] = None,
    limit: Annotated[int | None, typer.Option(min=1, max=RECORDS_MAX, metavar="N", help="stop after N")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="go on with new records until Ctrl-C")] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="key, headers and value as stored; with --json as `kcat -J`")
    ] = False,
) -> None:
    """Read the records of topics, oldest first.

    One line a record: partition and offset, log time, kind, agent and type, run. -v shows payloads, -vv headers too.
    With --json each line is a CloudEvent in JSON with its place. The command commits nothing, so it has no effect on
    the mesh. Records of a partition come in its order; between partitions, log time decides. --follow alone begins
    with new records; with --tail, --since or --from those come first. Events of other senders have the kind `foreign`:
    CloudEvents in any topic, and plain JSON in an ingress topic, which is shown as the request that it makes.
    """
    from mesh.operations.topic_reading import TopicRange

    span, starts, ends = time_span(since, until), places("--from", start), places("--to", end)
    wanted = RecordFilter(None, type, agent, glob(key), where(condition, session.topology))
    if follow and (until is not None or ends):
        raise InvalidInput("--follow has no end", code="usage", where="--follow", expected="neither --until nor --to")
    async with session.read_log() as log:
        names = topic_names(topics, session.topology, await log.topics())
        since_ms, until_ms = span.on(log.now_ms())
        run_id = None if run is None else await _run_id(log, session, run)
        wanted = wanted._replace(run=run_id)
        part = TopicRange(since_ms, until_ms, starts, ends)
        show = _printer(session, several=len(names) > 1, raw=raw)
        shown = 0
        async with aclosing(_chosen(log, session, names, part, wanted, tail, follow)) as found:
            async for one in found:
                show(one)
                shown += 1
                if shown == limit:
                    break
    if not shown:
        session.output.note("No such records.")


async def _run_id(log: "ReadLog", session: Session, name: str) -> str:
    return (await find_runs(session, log, lambda runs: runs.find(name))).run_id


async def _chosen(
    log: "ReadLog",
    session: Session,
    names: list[str],
    part: "TopicRange",
    wanted: RecordFilter,
    tail: int | None,
    follow: bool,
) -> "AsyncGenerator[Found]":
    """The stored records that are wanted, then those that come."""
    from mesh.core.protocol.record import TopicPartition
    from mesh.operations import topic_reading

    read = partial(event_in, topology=session.topology)
    spans: Spans = await topic_reading.spans_of(log, session.topology, names, part, wanted.run)
    if tail is not None:
        for one in await topic_reading.last_records(log, spans, wanted, tail, read):
            yield one
    elif not follow or part.since_ms is not None or part.starts:
        async with aclosing(topic_reading.read_topics(log, spans, wanted, read)) as stored:
            async for one in stored:
                yield one
    if follow:
        ends = {TopicPartition(topic, n): each.end for topic, span in spans.items() for n, each in span.items()}
        session.output.note(("waiting for records; Ctrl-C ends", "dim"))
        async with aclosing(topic_reading.follow(log, ends, wanted, read)) as coming:
            async for one in coming:
                yield one


def _printer(session: Session, *, several: bool, raw: bool) -> "Callable[[Found], None]":
    output, prefix = session.output, f"{session.topology.prefix}."

    def show(found: "Found") -> None:
        record, event = found
        if output.json:
            output.emit(record_view.raw_json(record) if raw else record_json(record, event))
        elif raw:
            record_view.raw_lines(output, record)
        else:
            record_view.record_line(output, record, event, topic=record.topic.removeprefix(prefix) if several else "")
            if output.verbosity > 0:
                record_view.payload_lines(output, record, event, headers=output.verbosity > 1)

    return show
