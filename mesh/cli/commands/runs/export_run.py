"""`mesh run export`: write runs into a file that all reading commands take in place of a log."""

from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mesh.cli.framework.options import command
from mesh.cli.framework.run_finding import find_runs
from mesh.cli.framework.selectors import SinceOption, UntilOption, WhereOption, time_span, where
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import counted
from mesh.core.errors import InvalidInput
from mesh.core.expression.field_path import ConditionInvalid, Path, parse_path

if TYPE_CHECKING:
    from mesh.adapters.ports import ReadLog
    from mesh.cli.framework.selectors import TimeSpan
    from mesh.core.protocol.event import Event
    from mesh.core.protocol.record import Record
    from mesh.core.replay.recording_format import Masking
    from mesh.core.selection.where import Where
    from mesh.operations.replay.recording_export import ChosenRuns
    from mesh.operations.runs import Runs

CHUNK_BYTES: Final = 65_536


def add_export(app: typer.Typer) -> None:
    """Register `export`."""
    command(app, "export", example="mesh run export 3f2a > run.jsonl")(export_runs)


async def export_runs(
    session: Session,
    run: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="a run's id or its beginning, a request's id, or a subject"),
    ] = None,
    *,
    condition: WhereOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    redact: Annotated[
        list[str] | None,
        typer.Option("--redact", metavar="PATH", help="mask this field of payloads, too: card.number; repeatable"),
    ] = None,
) -> None:
    """Write a run, or the runs whose request fits, as a recording: JSON Lines on standard output.

    The file holds the topology and each record of the runs with its place. Every command that only reads takes it as
    --log recording:FILE, and needs no log then. Secrets in payloads are masked. --where reads the payload and the
    attributes of the request; how a run went on says `mesh run list --where`.
    """
    from mesh.adapters.recording import RecordingLog
    from mesh.app.embedded_board import embedded_changes
    from mesh.cli.commands.version import number
    from mesh.core.replay.recording_format import Masking
    from mesh.operations.replay.recording_export import export

    span = time_span(since, until)
    if (run is None) == (condition is None and since is None and until is None):
        what = "no run is chosen" if run is None else "one run is chosen, and a condition or a time span"
        raise InvalidInput(
            what, code="usage", where="ID", expected="an id, or --where, --since, --until", remedy="Give one of both"
        )
    paths = [_path(session, text) for text in redact or ()]
    masking, lines, size = Masking(paths), [], 0
    async with session.read_log() as log:
        embedded = embedded_changes(log, session.topology, session.settings)
        gaps = []
        if isinstance(log, RecordingLog) and log.flaw:
            gaps.append(f"the recording that was read is cut: {log.flaw}")
        chosen = await _chosen(session, log, run, where(condition, session.topology), span, condition)
        with session.output.status("exporting"):
            async with aclosing(
                export(
                    log,
                    session.topology,
                    chosen,
                    masking=masking,
                    redacted=map(str, paths),
                    version=number(),
                    embedded=embedded,
                    gaps=gaps,
                )
            ) as written:
                count = 0
                async for line in written:
                    lines.append(line)
                    size += len(line)
                    if size >= CHUNK_BYTES:
                        session.output.write_lines(lines)
                        session.output.update(f"{count:,} records")
                        lines, size = [], 0
                    count += 1
                session.output.write_lines(lines)
    _report(session, count - 2, masking, gaps)


def _report(session: Session, records: int, masking: "Masking", gaps: list[str]) -> None:
    """Say on stderr what was written, and what the log no longer had of it."""
    for gap in gaps:
        session.output.warn(("missing: ", "yellow"), gap)
    about = [counted(records, "record")]
    if masked := sum(masking.counts.values()):
        about.append(f"{counted(masked, 'value')} masked: {', '.join(sorted(masking.counts)[:5])}")
    session.output.note(("exported ", "dim"), ", ".join(about))


async def _chosen(
    session: Session, log: "ReadLog", run: str | None, condition: "Where | None", span: "TimeSpan", text: str | None
) -> "ChosenRuns":
    """Find the runs to export. Raises NotFound if there are none."""
    from mesh.core.errors import NotFound
    from mesh.core.selection.where import event_attributes, payloads_of
    from mesh.operations.replay.recording_export import ChosenRuns, runs_where

    if run is not None:
        return await find_runs(session, log, lambda runs: _one(runs, run))

    def wanted(record: "Record", event: "Event") -> bool:
        payloads = {} if condition is None else payloads_of(event.type, event.content_type, event.data)
        return condition is None or condition.holds(payloads, event_attributes(event))

    since_ms, until_ms = span.on(log.now_ms())
    marks = await runs_where(log, session.topology, wanted, since_ms=since_ms, until_ms=until_ms)
    if not len(marks):
        raise NotFound("no run has a request that fits", where=log.url, remedy="`mesh run list` shows the latest")
    return ChosenRuns(marks, "", {"where": text, "since_ms": since_ms, "until_ms": until_ms, "runs": len(marks)})


async def _one(runs: "Runs", name: str) -> "ChosenRuns":
    """Choose one run, and find its places."""
    from mesh.operations.replay.recording_export import ChosenRuns, RunMarks

    run_id = (await runs.find(name)).run_id
    return ChosenRuns(RunMarks([run_id]), run_id, {"run": run_id}, await runs.finder.places(run_id))


def _path(session: Session, text: str) -> Path:
    try:
        path = parse_path(text)
    except ConditionInvalid as error:
        raise InvalidInput(
            error.what, code="bad_value", where=f"--redact, {error.where}", expected="a path such as card.number"
        ) from error
    return path.bind({*session.topology.rows, *session.topology.ingress, *session.topology.egress})
