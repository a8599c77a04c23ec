"""`mesh replay RUN`: print the steps of one run."""

from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from mesh.cli.framework.run_finding import find_runs
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import counted
from mesh.cli.views import replay_view, run_view
from mesh.core.protocol.event import rfc3339
from mesh.core.replay.steps import Step
from mesh.core.run.circuit_breaker import NO_BREAKERS
from mesh.operations.replay.run_replay import RunReplay, replay_each, replay_run

if TYPE_CHECKING:
    from mesh.adapters.ports import ReadLog


async def print_steps(session: Session, name: str) -> int:
    """Print every step of the run called `name`."""
    async with session.read_log() as log:
        found = await read_replay(session, log, name)
    print_replay(session, found)
    return 0


async def read_replay(session: Session, log: "ReadLog", name: str) -> RunReplay:
    """Decide the run called `name` again."""
    return await find_runs(session, log, lambda runs: replay_run(log, session.topology, name, runs=runs), payloads=True)


def print_replay(session: Session, found: RunReplay, breaks: Callable[[Step], bool] | None = None) -> None:
    """Print the run and all of its steps. `breaks`: marks those steps."""
    print_head(session, found)
    output, payload = session.output, session.output.verbosity > 0
    before_ms, breakers = found.history.opened_ms or (found.steps[0].at_ms if found.steps else 0), NO_BREAKERS
    for step in found.steps:
        marked = {} if breaks is None else {"break": breaks(step)}
        output.emit({**replay_view.step_json(step, payload=payload, breakers=breakers), **marked})
        if not output.json:
            output.print(("● break", "bold red") if breaks is not None and breaks(step) else "")
            for line in replay_view.step_lines(step, before_ms, payload=payload, breakers=breakers):
                output.print(*line)
        before_ms, breakers = step.at_ms, step.breakers
    if breaks is not None and not any(map(breaks, found.steps)):
        output.note(("no step fits --break", "yellow"))
    if not found.steps:
        output.print(("  none of its records is left on the log; `mesh run show` tells what is known", "dim"))


async def print_recording(session: Session) -> int:
    """Print every step of every run in the recording that the session reads, in the order of their requests."""
    first = True
    async with session.read_log() as log, aclosing(replay_each(log, session.topology)) as replays:
        async for found in replays:
            if not first:
                session.output.print()
            print_replay(session, found)
            first = False
    return 0


def print_head(session: Session, found: RunReplay) -> None:
    """Print the run, what the recording lacks of it, and the order of the steps."""
    output, history = session.output, found.history
    inbox = f"{session.topology.inbox}:{history.partition}"
    output.emit(
        {
            "run": history.run_id,
            "type": history.type,
            "subject": history.subject,
            "state": history.state,
            "opened": rfc3339(history.opened_ms) if history.opened_ms else None,
            "partition": inbox,
            "offsets": list(found.bounds),
            "steps": len(found.steps),
            "gaps": [gap._asdict() for gap in found.gaps],
            "topology_differs": history.differs,
        }
    )
    run_view.headline(output, history, with_id=False)
    output.print("  ", (run_view.facts(history), "dim"))
    order = f"in the order of {inbox}; `after N` names the step that caused it"
    output.print("  ", (f"{counted(len(found.steps), 'step')} {order}", "dim"))
    replay_view.gap_lines(output, found.gaps)
