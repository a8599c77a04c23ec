"""`mesh replay --resend`: recorded requests go into an ingress topic again, of this mesh or of another one."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mesh.cli.commands.replay.modes import misused, read_count
from mesh.cli.commands.replay.resend_options import SendOptions
from mesh.cli.framework.output import Piece
from mesh.cli.framework.run_finding import find_runs
from mesh.cli.framework.selectors import TimeSpan, glob, where
from mesh.cli.framework.session import Session, short
from mesh.cli.framework.text import counted, visible
from mesh.cli.framework.text import rate as per_second_of
from mesh.cli.views import sending_view
from mesh.cli.views.letter_view import entry_facts
from mesh.cli.views.run_view import id_of
from mesh.cli.views.sending_view import SHOWN_MAX
from mesh.core.errors import NotFound
from mesh.core.protocol.event import rfc3339
from mesh.core.selection.record_filter import RecordFilter
from mesh.core.suggest import did_you_mean

if TYPE_CHECKING:
    from mesh.adapters.ports import ReadLog
    from mesh.core.dead_letters.letter import Letter
    from mesh.core.dead_letters.redrive_plan import Sending
    from mesh.operations.dead_letters.sending import SendReport
    from mesh.operations.resend import FoundRequests, RequestChoice, Resend, ResendPlan


async def resend_requests(
    session: Session, run: str | None, span: TimeSpan, options: SendOptions, limits: Sequence[str]
) -> int:
    """Show which requests would be sent, or send them. Returns 1 if one cannot be sent."""
    from mesh.adapters.recording import RecordingLog
    from mesh.operations.resend import Resend, read_requests

    target = _target(session, options)
    per_second = None if options.rate is None else per_second_of("--rate", options.rate, "requests")
    async with session.read_log() as source:
        choice = await _choice(session, source, run, span, options, limits)
        found = await read_requests(source, session.topology, choice)
        origin = source.head.log if isinstance(source, RecordingLog) else source.url
        where_ = short(source.url)
    # The source is closed now: a file that this process reads only, it cannot write at the same time.
    if not options.yes:
        async with target.read_log() as read_only:
            plan = await _plan(session, target, options, origin, found, read_only)
        _notes(session, found, plan, where_)
        moves = choice.run_id is None and not isinstance(source, RecordingLog)
        return _show(session, plan, found, moves=moves)
    async with target.log() as log:
        plan = await _plan(session, target, options, origin, found, log)
        _notes(session, found, plan, where_)
        if plan.sendings:
            await target.create_embedded_topics(log)  # a file of an older version has no ledger
        return await _act(session, Resend(log, target.topology), plan, per_second)


async def _plan(
    session: Session,
    target: Session,
    options: SendOptions,
    origin: str,
    found: "FoundRequests",
    log: "ReadLog",
) -> "ResendPlan":
    """Plan what is sent to the target on `log`, and warn of two readers. Writes nothing. `origin`: log of the runs."""
    from mesh.core.dead_letters.resend_plan import ResendOptions
    from mesh.operations.resend import plan_resend

    same_log, same_prefix = origin == log.url, session.topology.prefix == target.topology.prefix
    if options.keep_ids and same_log and same_prefix:
        what = "a mesh takes a request with the same id for the same request, and ignores it"
        raise misused(what, "--keep-ids", "Leave it out, or name another mesh with --to-log or --to-topology")
    how = ResendOptions(options.into, options.keep_ids, options.again)
    plan = await plan_resend(log, target.topology, found.requests, session.topology.prefix, how)
    if same_log and not same_prefix:
        _warn_of_both(session, plan)
    return plan


def _target(session: Session, options: SendOptions) -> Session:
    """Return the session of the mesh that gets the requests."""
    target = session.of_target(options.to_log, options.to_topology)
    if target.settings.log.startswith("recording:"):
        raise misused("a recording takes no requests", "--to-log", "Name the log of a mesh with --to-log")
    topics = [rule.name for rule in target.topology.topics.values() if rule.ingress]
    if options.into and options.into not in topics:
        raise NotFound(
            f"mesh {target.topology.name} has no ingress topic {options.into[:249]!r}",
            where="--into",
            expected=", ".join(topics),
            remedy=did_you_mean(options.into, topics),
        )
    return target


async def _choice(
    session: Session,
    log: "ReadLog",
    run: str | None,
    span: TimeSpan,
    options: SendOptions,
    limits: Sequence[str],
) -> "RequestChoice":
    from mesh.operations.resend import REQUESTS_MAX, RequestChoice

    since_ms, until_ms = span.on(log.now_ms())
    run_id = None if run is None else (await find_runs(session, log, lambda runs: runs.find(run))).run_id
    condition = where(options.condition, session.topology)
    wanted = RecordFilter(None, options.type, None, glob(options.key), condition)
    return RequestChoice(run_id, since_ms, until_ms, wanted, read_count(limits, "requests", REQUESTS_MAX))


def _warn_of_both(session: Session, plan: "ResendPlan") -> None:
    """Warn if the mesh whose requests they are reads them from the target's topics, too."""
    ours = {rule.name for rule in session.topology.topics.values() if rule.ingress}
    both = sorted({sending.topic for sending in plan.sendings} & ours)
    if both:
        text = f"mesh {session.topology.name} reads {', '.join(both)}, too: requests sent there begin runs in both"
        session.output.warn((text, "yellow"))


# ------------------------------------------------------------------------------------------------------- the plan


def _notes(session: Session, found: "FoundRequests", plan: "ResendPlan", where_: str) -> None:
    output = session.output
    for gap in found.gaps:
        output.warn((f"{gap}: requests among them are not sent", "yellow"))
    if found.resent:
        output.note(f"{counted(found.resent, 'request')} left out: a resend made them")
    if plan.unfinished:
        text = f"{counted(plan.unfinished, 'request')} of an interrupted resend are not among these"
        output.warn((text, "yellow"), "; choose the same ones as then to send the rest")
    if not found.requests:
        output.note(f"No such requests on {where_}: nothing to send.")


def _show(session: Session, plan: "ResendPlan", found: "FoundRequests", *, moves: bool) -> int:
    """Show a plan. `moves`: whether the same command may find other requests later."""
    output = session.output
    if plan.sendings:
        output.print(("would be sent", "bold"))
        heads = ("SUBJECT", "TYPE", "RUN", "TO", "NEW RUN", ">BYTES", "NOTE")
        output.listing(heads, plan.sendings, _row, _sending_json, rows_max=SHOWN_MAX)
    _cannot(session, plan)
    _already(session, plan)
    if plan.sendings:
        output.note(f"{counted(len(plan.sendings), 'request')} would be sent; --yes does it")
        times = [request.record.timestamp for request in found.requests]
        if moves:
            output.note(("exactly these: ", "dim"), f"--since @{min(times)} --until @{max(times) + 1}")
    return 1 if plan.obstacles else 0


def _row(sending: "Sending") -> list[Piece]:
    headers = dict(sending.records[0].headers)
    return [
        visible(headers["ce_subject"].decode(), 24),
        sending.letter.type,
        id_of(sending.letter.run_id),
        sending.topic,
        id_of(sending.run_id),
        f"{len(sending.payload or b''):,}",
        ("interrupted" if sending.interrupted else f"sent {sending.n - 1}× before" if sending.n > 1 else "", "yellow"),
    ]


def _cannot(session: Session, plan: "ResendPlan") -> None:
    """Show the obstacles, by reason, with a run for example."""
    output = session.output
    if plan.obstacles:
        output.print(("cannot be sent", "bold"))
    for obstacle in plan.obstacles:
        why = {"message": obstacle.message, "remedy": obstacle.remedy}
        output.emit({**_step_json(obstacle.letter, "cannot"), **why})
    reasons = Counter((obstacle.message, obstacle.remedy) for obstacle in plan.obstacles)
    examples = {(obstacle.message, obstacle.remedy): obstacle.letter.run_id for obstacle in reversed(plan.obstacles)}
    for (message, remedy), number in reasons.most_common(SHOWN_MAX):
        about = f"{counted(number, 'request')}, such as that of run {id_of(examples[message, remedy])}: {message}. "
        output.print("  ", about, (remedy, "dim"))


def _already(session: Session, plan: "ResendPlan") -> None:
    for step in plan.already_done:
        session.output.emit({**_step_json(step.letter, "nothing"), "message": step.message})
    if plan.already_done:
        name = f"the request of run {id_of(plan.already_done[0].letter.run_id)}"
        sending_view.already_done(session.output, plan.already_done, name, "request")


def _step_json(letter: "Letter", step: str) -> dict[str, Any]:
    return {"id": letter.id, "plan": step, "type": letter.type, "run": letter.run_id, "time": rfc3339(letter.at_ms)}


def _sending_json(sending: "Sending") -> dict[str, Any]:
    return {
        **_step_json(sending.letter, "send"),
        "topic": sending.topic,
        "partition": sending.partition,
        "new_run": sending.run_id,
        "n": sending.n,
        "bytes": len(sending.payload or b""),
        "interrupted": sending.interrupted is not None,
    }


# -------------------------------------------------------------------------------------------------------- the act


async def _act(session: Session, resend: "Resend", plan: "ResendPlan", per_second: float | None) -> int:
    output = session.output
    if not plan.sendings:
        _cannot(session, plan)
        _already(session, plan)
        if plan.obstacles:
            output.note("no request was sent")
        return 1 if plan.obstacles else 0
    report = await sending_view.with_progress(
        output, len(plan.sendings), lambda count: resend.send(plan, per_second=per_second, on_progress=count)
    )
    _report(session, plan, report)
    return 1 if report.refused or plan.obstacles else 0


def _report(session: Session, plan: "ResendPlan", report: "SendReport") -> None:
    output = session.output
    for entry in (*report.sent, *report.refused):
        output.emit(entry_facts(entry))
    output.print(("✓ ", "green"), f"{counted(len(report.sent), 'request')} sent")
    runs = {sending.letter.id: sending.letter.run_id for sending in plan.sendings}
    for entry in report.refused[:SHOWN_MAX]:
        output.print(("✗ ", "red"), f"{id_of(runs[entry.letter])}  the log refused it: {entry.result}")
    output.omitted(len(report.refused) - SHOWN_MAX)
    sending_view.elsewhere(output, len(report.elsewhere), "request")
    _cannot(session, plan)
    if len(report.sent) == 1:
        output.note(("follow it: ", "dim"), f"mesh run show {id_of(report.sent[0].run_id)}")
