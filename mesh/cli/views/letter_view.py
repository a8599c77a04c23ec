"""Dead letters in output, and the options by which the commands of `mesh dead` choose them."""

import inspect
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from mesh.cli.framework.completion import agents
from mesh.cli.framework.options import Function
from mesh.cli.framework.output import Piece
from mesh.cli.framework.selectors import time_span, where
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import ago, visible
from mesh.cli.views.run_view import MOMENT_CHARS_MAX, id_of
from mesh.core.protocol.event import rfc3339
from mesh.core.suggest import did_you_mean

if TYPE_CHECKING:
    from mesh.operations.dead_letters import Case, DeadLetters, RedriveEntry, Selection

ID_CHARS: Final = 12
_PANEL: Final = "Which letters"
_STYLES: Final = {"new": "red", "refused": "red", "planned": "yellow", "dropped": "dim", "sent": "cyan"}


def _option(name: str, metavar: str, help: str, **more: Any) -> inspect.Parameter:
    option = typer.Option(f"--{name}", metavar=metavar, help=help, rich_help_panel=_PANEL, **more)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


FILTERS: Final = (
    _option("reason", "CODE", "only with this reason code"),
    _option("agent", "NAME", "only of this agent", autocompletion=agents),
    _option("type", "TYPE", "only with an event of this type"),
    _option("run", "ID", "only of runs whose id begins with this"),
    _option("since", "TIME", "only from then on: an age (10m, 2h, 1d), 2026-11-20T12:00Z or @MS"),
    _option("until", "TIME", "only before then, in the same form"),
    _option("where", "EXPRESSION", "only where this condition on payload and attributes holds, as in `when:`"),
    _option("topic", "NAME", "another dead letter queue: of Connect, Streams, Spring or a share group"),
)
"""The options by which every command of `mesh dead` chooses letters."""
NAMES: Final = inspect.Parameter(
    "names",
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    default=None,
    annotation=Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="ids, or beginnings of ids; none: all that match")
    ],
)


def letter_filters(*, names: bool) -> Callable[[Function], Function]:
    """Add the options that choose letters to a command. It gets `chosen`, a Selection, and `queue`, a topic or ""."""

    def register(function: Function) -> Function:
        own = list(inspect.signature(function).parameters.values())
        mine = [parameter for parameter in own[1:] if parameter.name not in ("chosen", "queue")]

        def run(session: Session, **given: Any) -> Any:
            from mesh.operations.dead_letters import Selection

            found: dict[str, Any] = {parameter.name: given.pop(parameter.name) for parameter in FILTERS}
            since_ms, until_ms = time_span(found["since"], found["until"]).on(time.time_ns() // 1_000_000)
            chosen = Selection(
                tuple(given.pop("names", None) or ()),
                agent=found["agent"],
                reason=found["reason"],
                type=found["type"],
                run=found["run"],
                since_ms=since_ms,
                until_ms=until_ms,
                where=None if found["where"] is None else where(found["where"], session.topology),
            )
            return function(session, chosen=chosen, queue=found["topic"] or "", **given)

        first = [NAMES] if names else []
        run.__signature__ = inspect.Signature([own[0], *first, *FILTERS, *mine])  # type: ignore[attr-defined]
        run.__doc__, run.__name__ = function.__doc__, function.__name__
        return run

    return register


def is_any(chosen: "Selection") -> bool:
    """Whether no option chooses letters, so that all are meant."""
    return not any(value not in (None, ()) for value in chosen)


async def note_unknown_names(session: Session, dead: "DeadLetters", chosen: "Selection") -> None:
    """Note the unknown names in filters that found no letter, since a typo looks like good news.

    A name that any letter has is known, such as that of a removed agent.
    """
    from mesh.core.reason_codes import REASONS

    topology = session.topology
    types = {*topology.rows, *topology.ingress, *topology.egress}
    asked = (
        ("agent", "no agent is called", chosen.agent, set(topology.agents)),
        ("reason", "there is no reason", chosen.reason, set(REASONS)),
        ("type", "there is no type", chosen.type, types),
    )
    doubtful = [(option, what, name, known) for option, what, name, known in asked if name and name not in known]
    letters = [case.letter for case in await dead.select()] if doubtful else []
    for option, what, name, known in doubtful:
        had = {getattr(letter, option) for letter in letters} - {""}
        if name in had:
            continue
        remedy = did_you_mean(name, known | had, f"`mesh dead list` without --{option} shows what there is")
        session.output.note(("note ", "yellow"), f"{what} {name[:128]!r}. ", (remedy, "dim"))


# --------------------------------------------------------------------------------------------------- how they look


def letter_facts(case: "Case") -> dict[str, Any]:
    """A letter and its state as JSON-able values."""
    letter, status = case.letter, case.status
    return {
        "id": letter.id,
        "state": status.state,
        "redriven": status.before + status.n,
        "result": "" if status.last is None else status.last.result,
        "reason": letter.reason,
        "message": letter.message,
        "agent": letter.agent,
        "run": letter.run_id,
        "task": letter.task_id,
        "type": letter.type,
        "attempts": letter.attempts,
        "class": letter.cls,
        "origin": str(letter.origin or ""),
        "written_by": letter.dialect,
        "at": rfc3339(letter.at_ms),
        "place": letter.position,
        "bytes": len(letter.value or b""),
    }


def entry_facts(entry: "RedriveEntry") -> dict[str, Any]:
    """An entry of the ledger as JSON-able values."""
    hidden = ("letter", "run_id", "data", "at_ms", "after", "partition")
    facts = {name: value for name, value in entry._asdict().items() if name not in hidden}
    about = {"id": entry.letter, "run": entry.run_id, "at": rfc3339(entry.at_ms), "changed": entry.data is not None}
    return {**about, **facts}


def state_of(case: "Case") -> Piece:
    """The state of a letter in a few words."""
    status = case.status
    result = "" if status.last is None else status.last.result
    style = {"completed": "green", "failed": "red"}.get(result, "yellow") if status.state == "done" else ""
    return (str(status), style or _STYLES.get(status.state, ""))


def letter_row(case: "Case") -> Sequence[Piece]:
    """A letter as a row of HEADS."""
    letter = case.letter
    about = [letter.id[:ID_CHARS], letter.reason, letter.agent, id_of(letter.run_id)]
    return [*about, (ago(letter.at_ms), "dim"), state_of(case), visible(letter.message, MOMENT_CHARS_MAX)]


HEADS: Final = ("ID", "REASON", "AGENT", "RUN", "AGE", "STATE", "MESSAGE")
