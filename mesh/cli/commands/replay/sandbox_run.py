"""`mesh replay RUN --run`: the functions of today take a recorded run again, on a private mesh."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mesh.cli.commands.replay.agent_topic import functions_of, swap_of, todays_topology
from mesh.cli.framework.session import Session
from mesh.cli.framework.signals import terminable
from mesh.cli.views import sandbox_view
from mesh.core.errors import InvalidInput

if TYPE_CHECKING:
    from mesh.adapters.ports import ReadLog
    from mesh.app.sandbox import Rerun
    from mesh.core.dead_letters.patch import Patch
    from mesh.core.replay.answer_diff import Ignored
    from mesh.core.replay.run_diff import RunDiff
    from mesh.core.task.agent import Agent
    from mesh.core.topology.model import Topology
    from mesh.operations.replay.run_facts import RunFacts


class SandboxOptions(NamedTuple):
    """Options of running a run again."""

    set: Sequence[str] = ()
    from_task: str = ""
    agents: Sequence[str] = ()
    repeat: int = 1
    ignore: Sequence[str] = ()
    timeout_s: float = 60.0


async def sandbox_run(session: Session, name: str | None, options: SandboxOptions) -> int:
    """Run a recorded run again, compare, and print; None: each run of a recording. Returns 1 if something differs."""
    from mesh.core.dead_letters.patch import parse_patch
    from mesh.core.replay.answer_diff import Ignored
    from mesh.operations.replay.run_replay import recorded_runs

    ignored = Ignored(options.ignore)
    patches = [parse_patch(text) for text in options.set]
    topology = todays_topology(session)
    agents = functions_of(topology, dict(_swap(topology, text) for text in options.agents))
    async with session.read_log() as log:
        names = [name] if name is not None else await recorded_runs(log, session.topology)
        code = 0
        for number, each in enumerate(names):
            recorded, rerun = await _plan(session, log, topology, each, patches, options.from_task)
            results = [
                result async for result in _repeated(session, topology, agents, recorded, rerun, options, ignored)
            ]
            if number:
                session.output.print()
            sandbox_view.sandbox(session.output, recorded, results)
            code = max(code, *(0 if found.same else 1 for _, found in results))
    return code


async def _plan(
    session: Session, log: "ReadLog", topology: "Topology", name: str, patches: "Sequence[Patch]", from_task: str
) -> "tuple[RunFacts, Rerun]":
    """Read a run, and how it is taken again."""
    from mesh.app.recorded_board import recorded_board
    from mesh.app.sandbox import rerun_of
    from mesh.operations.replay.run_facts import read_run_facts
    from mesh.operations.replay.task_answers import Period

    recorded = await read_run_facts(log, session.topology, name)
    rerun = rerun_of(recorded, topology, patches=patches, from_task=from_task)
    at_ms = recorded.requests[0].at_ms
    past = await recorded_board(log, session.topology, session.settings, Period(at_ms, at_ms))
    return recorded, rerun._replace(board=past.values(at_ms, but=recorded.writers))


async def _repeated(
    session: Session,
    topology: "Topology",
    agents: "Mapping[str, Agent]",
    recorded: "RunFacts",
    rerun: "Rerun",
    options: SandboxOptions,
    ignored: "Ignored",
) -> "AsyncIterator[tuple[RunFacts, RunDiff]]":
    from mesh.app.sandbox import run_in_sandbox
    from mesh.core.replay.run_diff import RunSide, run_diff

    with terminable(), session.output.progress(options.repeat if options.repeat > 1 else None) as bar:
        for number in range(1, options.repeat + 1):
            new = await run_in_sandbox(topology, agents, rerun, timeout_s=options.timeout_s)
            sides = [RunSide(facts.outcome, facts.tasks, facts.last_answers) for facts in (recorded, new)]
            bar.advance(1, f"{number} of {options.repeat}")
            yield new, run_diff(sides[0], sides[1], ignored)


def _swap(topology: "Topology", text: str) -> tuple[str, str]:
    name, run = swap_of(topology, text)
    if not run:
        raise InvalidInput(
            "a run takes all agents again; --agent swaps the function of one",
            code="bad_value",
            where="--agent",
            expected=f"{name}=module:function",
            got=text[:64],
        )
    return name, run
