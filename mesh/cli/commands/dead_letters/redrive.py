"""`mesh dead redrive`: plan to send dead letters again, and with --yes send them."""

import os
import shlex
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from mesh.cli.commands.runs.publish_lines import opened
from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session
from mesh.cli.framework.standard_streams import document, read_all_input
from mesh.cli.framework.text import counted, seconds
from mesh.cli.framework.text import rate as per_second_of
from mesh.cli.views import sending_view
from mesh.cli.views.letter_view import ID_CHARS, entry_facts, is_any, letter_filters, note_unknown_names
from mesh.cli.views.run_view import id_of
from mesh.cli.views.sending_view import SHOWN_MAX
from mesh.core.dead_letters.redrive_log import NOTHING_TO_REDRIVE
from mesh.core.errors import InvalidInput, NotAccepted

if TYPE_CHECKING:
    from mesh.operations.dead_letters import (
        Case,
        DeadLetters,
        Letter,
        RedriveOptions,
        RedrivePlan,
        RedriveReport,
        Selection,
        Sending,
    )


@letter_filters(names=True)
async def redrive(
    session: Session,
    *,
    chosen: "Selection",
    queue: str,
    yes: Annotated[bool, typer.Option("--yes", help="send; without it only shows what would be sent")] = False,
    rate: Annotated[str | None, typer.Option(metavar="N/s", help="at most so many letters a second")] = None,
    set: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="change a field of the payload first")
    ] = None,
    edit: Annotated[bool, typer.Option("--edit", help="change the payload of one letter in $EDITOR first")] = False,
    as_new: Annotated[bool, typer.Option("--as-new", help="start a new run instead of continuing")] = False,
    again: Annotated[bool, typer.Option("--again", help="also letters that were sent before, or dropped")] = False,
    force: Annotated[bool, typer.Option("--force", help="send a letter a fourth time; needs --why")] = False,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="reason in the ledger, with --force")] = "",
    source: Annotated[
        str | None, typer.Option("--from", metavar="FILE", help="letters of `mesh dead export`; - is standard input")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="wait for the results, which decide the exit code")] = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="how long --wait waits")] = "60s",
) -> int:
    """Send dead letters again; their runs continue.

    Without --yes the command shows where each letter would be sent, or why not, and changes nothing. A letter that was
    sent is not sent again. After an interruption, the same command sends exactly the rest.
    """
    from mesh.operations.dead_letters import DeadLetters

    per_second = None if rate is None else per_second_of("--rate", rate, "letters")
    timeout_s = seconds("--timeout", timeout)
    how = _how(set or [], as_new, again, force, why)
    if source is not None and not is_any(chosen):
        raise _usage("--from names the letters; other filters cannot be combined with it")
    async with session.log() as log:
        dead = DeadLetters(log, session.topology, topic=queue)
        cases = await dead.select(chosen) if source is None else await dead.with_statuses(_read_letters(source))
        if edit:
            how = how._replace(data=_edit(session, cases, how), patches=())
        if not cases:
            await note_unknown_names(session, dead, chosen)
        plan = await dead.plan(cases, how)
        if not yes:
            return _show(session, plan)
        if plan.sendings:
            await session.create_embedded_topics(log)  # a file of an older version has no ledger
        return await _act(session, dead, plan, per_second, timeout_s if wait else None)


def _how(changes: list[str], as_new: bool, again: bool, force: bool, why: str) -> "RedriveOptions":
    from mesh.core.dead_letters.patch import parse_patch
    from mesh.operations.dead_letters import RedriveOptions

    if force and not why.strip():
        raise _usage("--force needs a reason", "Say it with --why TEXT; the ledger keeps it")
    if why and not force:
        raise _usage("--why goes with --force")
    return RedriveOptions(as_new, again, why if force else "", tuple(parse_patch(text) for text in changes))


# ------------------------------------------------------------------------------------------------------- the plan


def _show(session: Session, plan: "RedrivePlan") -> int:
    output = session.output
    if plan.sendings:
        output.print(("would be sent", "bold"))
        heads = ("ID", "WAY", "TO", "RUN", "AGENT", ">REDRIVE", ">BYTES", "NOTE")
        output.listing(heads, plan.sendings, _row, _sending_json, rows_max=SHOWN_MAX)
    _cannot(session, plan)
    _show_already_done(session, plan)
    if plan.sendings:
        output.note(f"{counted(len(plan.sendings), 'letter')} would be sent; --yes does it")
    return 0


def _row(sending: "Sending") -> list[Piece]:
    letter = sending.letter
    notes = [*(["changed"] if sending.data is not None else []), *(["interrupted"] if sending.interrupted else [])]
    if sending.way == "hop":
        notes.append("done once more, takes no refusal back" if sending.once_more else "takes its refusal back")
    return [
        letter.id[:ID_CHARS],
        sending.way,
        sending.topic,
        id_of(sending.run_id),
        letter.agent,
        f"{sending.before + sending.n}",
        f"{len(sending.payload or b''):,}",
        (", ".join(notes), "yellow"),
    ]


def _cannot(session: Session, plan: "RedrivePlan") -> None:
    output = session.output
    if plan.obstacles:
        output.print(("cannot be sent", "bold"))
    for n, obstacle in enumerate(plan.obstacles):
        why = {"message": obstacle.message, "remedy": obstacle.remedy}
        output.emit({**_step_json(obstacle.letter, "cannot"), **why})
        if n < SHOWN_MAX:
            about = f"{obstacle.letter.id[:ID_CHARS]}  {obstacle.letter.reason}: {obstacle.message}. "
            output.print("  ", about, (obstacle.remedy, "dim"))
    output.omitted(len(plan.obstacles) - SHOWN_MAX)


def _show_already_done(session: Session, plan: "RedrivePlan") -> None:
    if not plan.already_done:
        if not plan.sendings and not plan.obstacles:
            session.output.note("No such dead letters: nothing to send.")
        return
    for step in plan.already_done:
        session.output.emit({**_step_json(step.letter, "nothing"), "message": step.message})
    sending_view.already_done(session.output, plan.already_done, plan.already_done[0].letter.id[:ID_CHARS], "letter")


def _step_json(letter: "Letter", step: str) -> dict[str, Any]:
    return {"id": letter.id, "plan": step, "reason": letter.reason, "agent": letter.agent, "run": letter.run_id}


def _sending_json(sending: "Sending") -> dict[str, Any]:
    return {
        **_step_json(sending.letter, "send"),
        "way": sending.way,
        "topic": sending.topic,
        "run": sending.run_id,
        "n": sending.n,
        "redriven": sending.before + sending.n - 1,
        "bytes": len(sending.payload or b""),
        "changed": sending.data is not None,
        "interrupted": sending.interrupted is not None,
        "takes_back": sending.way == "task" or (sending.way == "hop" and not sending.once_more),
    }


# -------------------------------------------------------------------------------------------------------- the act


async def _act(
    session: Session, dead: "DeadLetters", plan: "RedrivePlan", per_second: float | None, wait_s: float | None
) -> int:
    output = session.output
    if plan.obstacles and not plan.sendings:
        first = plan.obstacles[0]
        what = f"{counted(len(plan.obstacles), 'letter')} cannot be sent, none was; {first.letter.id[:ID_CHARS]}"
        raise NotAccepted(f"{what}: {first.message}", where="mesh dead redrive", remedy=first.remedy)
    if not plan.sendings:
        _show_already_done(session, plan)
        return 0
    report = await sending_view.with_progress(
        output,
        len(plan.sendings),
        lambda count: dead.redrive(plan, per_second=per_second, on_progress=count),
    )
    bad = _report_sent(session, plan, report)
    if wait_s is not None and report.sent:
        bad = await _wait(session, dead, report, wait_s) or bad
    elif len(report.sent) == 1 and report.sent[0].run_id:
        output.note(("follow it: ", "dim"), f"mesh run show {id_of(report.sent[0].run_id)}")
    return 1 if bad or plan.obstacles else 0


def _report_sent(session: Session, plan: "RedrivePlan", report: "RedriveReport") -> bool:
    """Print what was sent. Return whether the log refused something."""
    output = session.output
    for entry in (*report.sent, *report.refused):
        output.emit(entry_facts(entry))
    output.print(("✓ ", "green"), f"{counted(len(report.sent), 'letter')} sent")
    for entry in report.refused[:SHOWN_MAX]:
        output.print(("✗ ", "red"), f"{entry.letter[:ID_CHARS]}  the log refused it: {entry.result}")
    sending_view.elsewhere(output, len(report.elsewhere), "letter")
    _cannot(session, plan)
    return bool(report.refused)


async def _wait(session: Session, dead: "DeadLetters", report: "RedriveReport", wait_s: float) -> bool:
    """Wait for the results. Return whether one is not `completed`."""
    output, known = session.output, 0

    with output.status(f"waiting for {counted(len(report.sent), 'letter')}"):

        def count(more: int) -> None:
            nonlocal known
            known += more
            output.update(f"{known:,} of {len(report.sent):,} have ended")

        done = await dead.wait(report, timeout_s=wait_s, on_progress=count)
    for entry in done:
        output.emit(entry_facts(entry))
    for result, number in Counter(entry.result for entry in done).most_common():
        style = "green" if result == "completed" else "red"
        output.print((f"  {result}", style), f"  {counted(number, 'letter')}")
        if result == NOTHING_TO_REDRIVE:
            output.note("the run ignored it: its task was sent again before, and is no failure of the run any more")
    return any(entry.result != "completed" for entry in done)


# --------------------------------------------------------------------------------------------------- what comes in


def _read_letters(path: str) -> "list[tuple[Letter, bool]]":
    from mesh.operations.dead_letters import letter_from

    found: list[tuple[Letter, bool]] = []
    remedy = "Name a file that `mesh dead export` wrote after --from, or - for standard input"
    if path == "-":
        text = read_all_input()
    else:
        with opened(path, remedy=remedy) as file:
            text = document(file.read(), path)
    for number, line in enumerate(text.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(letter_from(orjson.loads(line)))
        except ValueError as error:  # orjson's error is one
            raise InvalidInput(
                f"invalid letter: {error}",
                code="unparseable",
                where=f"{path}:{number}",
                expected="a line of `mesh dead export`",
            ) from error
    return found


def _edit(session: Session, cases: "list[Case]", how: "RedriveOptions") -> bytes:
    """Let the user edit the payload of the only letter. Return it as edited."""
    from mesh.core.dead_letters.patch import apply_patches
    from mesh.core.protocol.json_check import Flaw, has_long_digits, parse_strict

    if len(cases) != 1:
        raise _usage(f"--edit is for one letter, {len(cases)} are chosen", "Name it by its id")
    letter = cases[0].letter
    data = apply_patches(letter.value or b"", letter.content_type, how.patches)
    shown = data
    if not has_long_digits(data) and not isinstance(parse_strict(data), Flaw):
        shown = orjson.dumps(orjson.loads(data), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    handle, name = tempfile.mkstemp(prefix=f"dead-{letter.id[:ID_CHARS]}-", suffix=".json")
    path = Path(name)
    with os.fdopen(handle, "wb") as file:
        file.write(shown)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.run([*shlex.split(editor), name], check=False).returncode
    except (OSError, ValueError) as error:
        path.unlink()
        reason = error.strerror if isinstance(error, OSError) else error
        raise _usage(
            f"the editor {editor!r} cannot be started: {reason}", "Name one in EDITOR, or use --set"
        ) from error
    written = document(path.read_bytes(), name)
    if code:
        path.unlink()
        raise NotAccepted(f"the editor ended with {code}: nothing is sent", where=editor)
    if written == shown:
        path.unlink()
        return data
    flaw = parse_strict(written)
    if isinstance(flaw, Flaw):
        raise InvalidInput(
            f"invalid payload: {flaw.message}",
            code=flaw.code,
            where=name,
            remedy="It is kept there",
        )
    path.unlink()
    return written.strip()


def _usage(what: str, remedy: str = "") -> InvalidInput:
    return InvalidInput(what, code="usage", where="mesh dead redrive", remedy=remedy)
