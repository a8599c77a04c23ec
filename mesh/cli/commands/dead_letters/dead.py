"""`mesh dead`: list and show dead letters with their reasons; export, drop and redrive them."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from mesh.cli.commands.dead_letters.redrive import redrive
from mesh.cli.framework.options import command, noun
from mesh.cli.framework.run_finding import find_runs
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import MESSAGE_CHARS_MAX, clock, counted, escaped_json, moment, pretty_json, visible
from mesh.cli.views.letter_view import (
    HEADS,
    ID_CHARS,
    entry_facts,
    letter_facts,
    letter_filters,
    letter_row,
    note_unknown_names,
    state_of,
)
from mesh.cli.views.run_view import id_of
from mesh.core.protocol.event import rfc3339

if TYPE_CHECKING:
    from mesh.adapters.ports import Log
    from mesh.core.history.task_attempts import TaskAttempt
    from mesh.operations.dead_letters import Case, DeadLetters, Letter, RedriveEntry, RedrivePlan, Selection

app = noun("Show dead letters, send them again, export or drop them.")


def _dead(log: "Log", session: Session, queue: str) -> "DeadLetters":
    from mesh.operations.dead_letters import DeadLetters

    return DeadLetters(log, session.topology, topic=queue)


@command(app, "list", example="mesh dead list --agent pricing --since 1h")
@letter_filters(names=False)
async def list_dead(
    session: Session,
    *,
    chosen: "Selection",
    queue: str,
    all: Annotated[bool, typer.Option("--all", help="also dropped letters")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, metavar="N", help="the largest number")] = 50,
) -> None:
    """List dead letters with their state, newest first."""
    async with session.log() as log:
        dead = _dead(log, session, queue)
        found = await dead.select(chosen, dropped=all)
        if not found:
            await note_unknown_names(session, dead, chosen)
        found.sort(key=lambda case: (-case.letter.at_ms, -case.letter.record.offset))
        shown = await dead.results(found[:limit])
    session.output.listing(HEADS, shown, letter_row, letter_facts)
    if not shown:
        session.output.note("No dead letters.")
    if len(found) > limit:
        session.output.note((f"… and {len(found) - limit:,} older ones: --limit {len(found)}", "dim"))


@command(app, "show", example="mesh dead show 3f2a")
async def show(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="its id or the beginning of it, or topic:partition:offset")],
    *,
    topic: Annotated[str | None, typer.Option("--topic", metavar="NAME", help="another dead letter queue")] = None,
) -> None:
    """Show one dead letter in full, and the next command.

    It shows reason, origin, every attempt, the ledger, headers and bytes.
    """
    from mesh.operations.dead_letters import Selection

    async with session.log() as log:
        dead = _dead(log, session, topic or "")
        (case,) = await dead.results(await dead.select(Selection((id,))))
        letter = case.letter
        entries, plan = await dead.entries(letter.id), await dead.plan([case])
        history = None
        if letter.task_id:
            history = await find_runs(session, log, lambda runs: runs.history(letter.run_id))
    task = None if history is None else history.tasks.get(letter.task_id)
    attempts = [] if task is None else task.attempts
    session.output.emit(_shown_json(case, attempts, entries, _next_text(plan, topic)))
    _facts(session, case)
    _attempts(session, attempts)
    _ledger(session, entries)
    _contents(session, letter)
    if letter.run_id:
        session.output.note(("its run: ", "dim"), f"mesh run show {id_of(letter.run_id)}")
    label = "send it again: " if plan.sendings else "next: "
    session.output.note((label, "dim"), _next_text(plan, topic))


@command(app, "export", example="mesh dead export --agent pricing > letters.jsonl")
@letter_filters(names=True)
async def export(
    session: Session,
    *,
    chosen: "Selection",
    queue: str,
    all: Annotated[bool, typer.Option("--all", help="also dropped letters")] = False,
) -> None:
    """Write dead letters as JSON Lines, byte for byte.

    Oldest first. Fields have the names of `kcat -J`; bytes that are not text are in `…_base64`. `mesh dead redrive
    --from FILE` reads the lines, changed or not; `jq -r .payload FILE` prints the payloads for kcat -P.
    """
    from mesh.operations.dead_letters import letter_json

    async with session.log() as log:
        dead = _dead(log, session, queue)
        cases = await dead.select(chosen, dropped=all)
        if not cases:
            await note_unknown_names(session, dead, chosen)
    for case in cases:
        sys.stdout.write(escaped_json(orjson.dumps(letter_json(case.letter)).decode()) + "\n")
    session.output.note((f"{counted(len(cases), 'letter')} exported", "dim"))


@command(app, "drop", example="mesh dead drop --agent pricing --until 7d --why 'test data' --yes")
@letter_filters(names=True)
async def drop(
    session: Session,
    *,
    chosen: "Selection",
    queue: str,
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="reason in the ledger")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="drop; without it only lists them")] = False,
) -> None:
    """Leave dead letters out of lists from now on.

    The ledger records it; the letters stay in their topic. Without --yes the command lists the letters and changes
    nothing.
    """
    output = session.output
    async with session.log() as log:
        dead = _dead(log, session, queue)
        cases = await dead.select(chosen, dropped=False)
        if not cases:
            await note_unknown_names(session, dead, chosen)
        if cases and yes:
            await session.create_embedded_topics(log)
            entries = await dead.drop(cases, reason=why)
            cases = [
                case._replace(status=case.status._replace(state=entry.state, last=entry))
                for case, entry in zip(cases, entries, strict=True)
            ]
    for case in cases:
        output.emit(letter_facts(case))
    if not cases:
        output.note("Nothing to drop: no such letters, or they are dropped already.")
    elif yes:
        output.print(("✓ ", "green"), f"{counted(len(cases), 'letter')} dropped")
    else:
        output.table(HEADS, [letter_row(case) for case in cases])
        output.note(f"{counted(len(cases), 'letter')} would be dropped; --yes does it")


command(app, "redrive", example="mesh dead redrive --agent pricing --since 1h --rate 10/s --yes")(redrive)


# ------------------------------------------------------------------------------------------------ one letter in full


def _shown_json(case: "Case", attempts: "list[TaskAttempt]", entries: "Any", next: str) -> dict[str, Any]:
    letter = case.letter
    return {
        **letter_facts(case),
        "stack": letter.stack,
        "history": [_attempt_json(attempt) for attempt in attempts],
        "ledger": [entry_facts(entry) for entry in entries],
        "next": next,
        "key": None if letter.key is None else letter.key.decode("utf-8", "backslashreplace"),
        "headers": [(name, (value or b"").decode("utf-8", "backslashreplace")) for name, value in letter.headers],
        "value": None if letter.value is None else letter.value.decode("utf-8", "backslashreplace"),
    }


def _attempt_json(attempt: "TaskAttempt") -> dict[str, Any]:
    fault = attempt.fault
    return {
        "attempt": attempt.number,
        "began": rfc3339(attempt.began_ms),
        "ended": None if attempt.ended_ms is None else rfc3339(attempt.ended_ms),
        "code": None if fault is None else fault.code,
        "message": None if fault is None else fault.message,
    }


def _facts(session: Session, case: "Case") -> None:
    letter, print = case.letter, session.output.print
    print((letter.reason or letter.dialect, "bold red"), f"  {visible(letter.message, MESSAGE_CHARS_MAX)}")
    facts = {
        "id": letter.id,
        "agent": letter.agent,
        "run": letter.run_id,
        "task": letter.task_id,
        "type": letter.type,
        "attempts": f"{letter.attempts}",
        "origin": str(letter.origin or ""),
        "class": letter.cls,
        "omitted": letter.omitted,
    }
    for name, text in facts.items():
        if text:
            print((f"  {name:<10}", "dim"), text)
    print(("  at        ", "dim"), moment(letter.at_ms), (f"  {letter.position}", "dim"))
    print(("  state     ", "dim"), state_of(case))


def _attempts(session: Session, attempts: "list[TaskAttempt]") -> None:
    if not attempts:
        return
    session.output.print()
    session.output.print(("attempts", "bold"))
    for attempt in attempts:
        fault = attempt.fault
        outcome = ("running", "dim") if attempt.ended_ms is None else ("succeeded", "green")
        if fault is not None:
            outcome = (f"{fault.code}: {visible(fault.message, MESSAGE_CHARS_MAX)}", "")
        session.output.print((f"  {attempt.number}  {clock(attempt.ended_ms or attempt.began_ms)}  ", "dim"), outcome)


def _ledger(session: Session, entries: "Any") -> None:
    if not entries:
        return
    session.output.print()
    session.output.print(("ledger", "bold"))
    for entry in entries:
        session.output.print((f"  {moment(entry.at_ms)}  {entry.by}  ", "dim"), _entry_text(entry))


def _entry_text(entry: "RedriveEntry") -> str:
    said = [f"redrive {entry.n}: {entry.result or entry.state}" if entry.n else entry.state]
    if entry.way == "new":
        said.append(f"as run {id_of(entry.run_id)}")
    if entry.place:
        said.append(entry.place)
    if entry.data is not None:
        said.append("with another payload")
    if entry.reason:
        said.append(f"because: {entry.reason}")
    return ", ".join(said)


def _contents(session: Session, letter: "Letter") -> None:
    output = session.output
    if letter.stack:
        output.print()
        output.print(("stack", "bold"))
        output.document(letter.stack, indent="  ")
    if letter.headers:
        output.print()
        output.print(("headers", "bold"))
        for name, value in letter.headers:
            output.print((f"  {name}  ", "dim"), (value or b"").decode("utf-8", "backslashreplace"))
    output.print()
    output.print(("value", "bold"), (f"  {len(letter.value or b''):,} bytes", "dim"))
    output.document(pretty_json(letter.value), indent="  ")


def _next_text(plan: "RedrivePlan", topic: str | None) -> str:
    """The next command, or why there is none."""
    for sending in plan.sendings:
        queue = f" --topic {topic}" if topic else ""
        return f"mesh dead redrive {sending.letter.id[:ID_CHARS]}{queue} --yes"
    for obstacle in plan.obstacles:
        return f"it cannot be sent: {obstacle.message}. {obstacle.remedy}"
    return f"nothing to do: {plan.already_done[0].message}"
