"""`mesh publish`: publish one event, or JSON Lines of events from a file or a pipe."""

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from mesh.cli.commands.runs.outcome_wait import explained_wait
from mesh.cli.commands.runs.publish_lines import LinePublisher, PublishOptions, opened
from mesh.cli.framework.completion import types
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Output
from mesh.cli.framework.session import Session
from mesh.cli.framework.standard_streams import document, read_all_input
from mesh.cli.framework.text import seconds, took
from mesh.cli.views import run_view
from mesh.core.errors import InvalidInput, WaitTimeout
from mesh.core.history.request_match import not_accepted, outcome_so_far, why_not_answered
from mesh.core.history.timeline import History
from mesh.core.protocol.event import fingerprint
from mesh.core.run.state import COMPLETED

if TYPE_CHECKING:
    from mesh.client import Mesh, Outcome
    from mesh.core.protocol.event import Event

app = verb()


@command(app, "publish", example="""mesh publish order.placed '{"order_id": "o-1", "lines": []}' --follow""")
async def publish(
    session: Session,
    type: Annotated[str, typer.Argument(metavar="TYPE", help="an ingress type of topics.yaml", autocompletion=types)],
    payload: Annotated[str, typer.Argument(metavar="JSON|@FILE|-", help="a document, @FILE, or - for JSON Lines")],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="wait for the outcome, which decides the exit code")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="print the timeline as it happens, and wait")] = False,
    id: Annotated[str | None, typer.Option(metavar="ID", help="id of the request; the same id is the same run")] = None,
    run_id: Annotated[str | None, typer.Option("--run-id", metavar="ID", help="the correlation id")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="ordering key, where the topic has `order: key` and no `key`")
    ] = None,
    deadline: Annotated[str | None, typer.Option(metavar="TIME", help="the run must have ended by then: 30s")] = None,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="how long --wait and --follow wait")] = "60s",
    strict: Annotated[bool, typer.Option("--strict", help="send nothing when one line is bad")] = False,
) -> int:
    """Publish an event, or one for every line of a stream.

    `-` and @FILE.jsonl are JSON Lines; any other @FILE is one document, @- is one from standard input. A bad line is
    reported with its number; the other lines are sent, and the exit code is 1.
    """
    options = PublishOptions(
        type,
        id,
        run_id,
        None if deadline is None else seconds("--deadline", deadline),
        wait or follow,
        seconds("--timeout", timeout),
        key,
    )
    lines = payload == "-" or (payload.startswith("@") and payload.lower().endswith((".jsonl", ".ndjson")))
    if lines and (id or run_id or follow):
        what = "--id, --run-id and --follow are for a single event"
        raise InvalidInput(what, code="usage", where="mesh publish", got="JSON Lines")
    from mesh.client import Mesh

    document = b"" if lines else _document(payload)
    async with session.log(create=True) as log:
        await session.create_embedded_topics(log)
        mesh = Mesh(log, session.topology)
        try:
            if lines:
                publisher = LinePublisher(session, mesh, options, strict=strict)
                return await publisher.run(None if payload == "-" else payload[1:])
            return await (_follow if follow else _single)(session, mesh, options, document)
        finally:
            await mesh.close()


async def _single(session: Session, mesh: "Mesh", options: PublishOptions, document: bytes) -> int:
    output = session.output
    run = (await mesh.send([options.request(mesh, document)]))[0]
    if not options.wait:
        output.emit({"run": run.id, "id": run.event_id, "type": options.type})
        output.print("published  ", (options.type, "bold"), ("  run ", "dim"), run_view.id_of(run.id))
        output.note(("follow it: ", "dim"), f"mesh run show {run_view.id_of(run.id)}")
        return 0
    output.note(("published  ", "dim"), options.type, (f"  run {run_view.id_of(run.id)}", "dim"))
    with output.status(f"waiting for run {run_view.id_of(run.id)}"):
        async with explained_wait(session, mesh.log, run.position, run.id):
            outcome = await run.outcome(timeout_s=options.timeout_s)
    output.emit(outcome.raw)
    _print_outcome(session, outcome)
    return 0 if outcome else 1


def _print_outcome(session: Session, outcome: "Outcome") -> None:
    output, body = session.output, outcome.raw
    output.print(run_view.state(outcome.ending), f" in {took(body['took_ms'])}", (f"  run {outcome.run_id}", "dim"))
    history = History(session.topology, outcome.run_id, partition=0)
    history.outcome = body
    run_view.reasons(output, history)
    for result in history.results:
        run_view.result_lines(output, result, whole=output.verbosity > 0)


async def _follow(session: Session, mesh: "Mesh", options: PublishOptions, document: bytes) -> int:
    from mesh.operations.runs import Runs

    output, runs = session.output, Runs(mesh.log, mesh.topology)
    event = options.request(mesh, document)
    ends = await runs.ends()  # first: an outcome that the history does not have yet lies behind them
    before = await runs.history(event.run_id)
    if before is not None and before.ending and before.late is None:
        _require_accepted(before, event)
        output.note(("note ", "yellow"), f"request {event.id} was published before; this is how its run ended")
        output.emit({"event": "ended", **run_view.history_json(before)})
        return _print_ended(output, before)
    run = (await mesh.send([event]))[0]
    output.note(("published  ", "dim"), options.type, (f"  run {run_view.id_of(run.id)}", "dim"))
    before_ms = 0
    try:
        async with (
            asyncio.timeout(options.timeout_s),
            explained_wait(session, mesh.log, run.position, run.id),
            aclosing(runs.watch(ends)) as changes,
        ):
            async for change in changes:
                if change.history.run_id != run.id:
                    continue
                for moment in change.moments:
                    output.emit({"run": run.id, **run_view.moment_json(moment)})
                    run_view.moment_line(output, moment, before_ms or moment.at_ms)
                    before_ms = moment.at_ms
                if change.ended:
                    _require_accepted(change.history, event)
                    output.emit({"event": "ended", **run_view.history_json(change.history)})
                    output.print()
                    return _print_ended(output, change.history)
    except TimeoutError as error:
        raise WaitTimeout(
            f"run {run.id} has not ended within {options.timeout_s:g} s; it goes on",
            where=mesh.topology.inbox,
            remedy=f"`mesh run show {run_view.id_of(run.id)}` shows its state; is a worker up (`mesh up`)?",
        ) from error
    return 1


def _require_accepted(history: History, event: "Event") -> None:
    """Raise NotAccepted if the run ended without this request."""
    outcome = history.outcome or (None if history.run is None else outcome_so_far(history.run))
    if outcome is None and history.late is not None:
        raise not_accepted(history.run_id, history.late.code, history.late.message)
    why = None if outcome is None else why_not_answered(outcome, event.id, fingerprint(event.data))
    if why is not None:
        raise not_accepted(history.run_id, *why)


def _print_ended(output: Output, history: History) -> int:
    run_view.headline(output, history)
    run_view.tree(output, history)
    run_view.reasons(output, history)
    return 0 if history.ending == COMPLETED else 1


def _document(payload: str) -> bytes:
    if payload == "@-":
        return read_all_input()
    if payload.startswith("@"):
        with opened(payload[1:]) as file:
            return document(file.read(), payload[1:])
    return payload.encode("utf-8", "surrogateescape")
