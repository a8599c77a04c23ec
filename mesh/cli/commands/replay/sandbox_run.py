"""`mesh replay RUN --run`: the functions of today take a recorded run again, on a private mesh."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mesh.cli.commands.replay.agent_topic import functions_of, swap_of, todays_topology
from mesh.cli.commands.replay.sandbox_options import CallOptions, ignored_fields
from mesh.cli.commands.replay.saved_file import saved_file
from mesh.cli.framework.logs import hide_sandbox
from mesh.cli.framework.run_finding import find_runs
from mesh.cli.framework.session import Session
from mesh.cli.framework.signals import terminable
from mesh.cli.framework.text import seconds
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


async def sandbox_run(session: Session, name: str | None, options: CallOptions) -> int:
    """Run a recorded run again, compare, and print; None: each run of a recording. Returns 1 if something differs."""
    from mesh.adapters.recording import RecordingLog
    from mesh.core.dead_letters.patch import parse_patch
    from mesh.operations.replay.run_replay import recorded_runs

    hide_sandbox(session.output)
    ignored = ignored_fields(options.ignore)
    patches = [parse_patch(text) for text in options.set or ()]
    topology = todays_topology(session)
    agents = functions_of(topology, dict(_swap(topology, text) for text in options.agent or ()))
    code, first = 0, True
    async with session.read_log() as log, aclosing(_recorded(session, log, name)) as all_runs:
        if options.save is not None:
            _check_one(1 if name is not None else len(await recorded_runs(log, session.topology)), options.repeat)
        async for recorded in all_runs:
            rerun = await _plan(session, log, topology, recorded, patches, options.from_task)
            for path in rerun.added:
                noun = "task" if options.from_task else "request"
                session.output.warn(("--set: ", "yellow"), f"the {noun} has no field {path}: it was added")
            masked = isinstance(log, RecordingLog) and log.is_masked
            results = [
                result
                async for result in _repeated(session, topology, agents, recorded, rerun, options, ignored, masked)
            ]
            if not first:
                session.output.print()
            sandbox_view.sandbox(session.output, recorded, results, rerun.added)
            if options.save is not None:
                _tell_saved(session, options.save, results[0][0])
            code, first = max(code, *(0 if found.same else 1 for _, found in results)), False
    return code


async def _recorded(session: Session, log: "ReadLog", name: str | None) -> "AsyncGenerator[RunFacts]":
    """Yield the run called `name`; None: all runs of a recording."""
    from mesh.operations.replay.run_facts import facts_of, read_run_facts
    from mesh.operations.replay.run_replay import replay_each

    if name is not None:
        yield await find_runs(
            session, log, lambda runs: read_run_facts(log, session.topology, name, runs=runs), payloads=True
        )
        return
    async with aclosing(replay_each(log, session.topology)) as replays:
        async for replay in replays:
            yield facts_of(replay)


async def _plan(
    session: Session,
    log: "ReadLog",
    topology: "Topology",
    recorded: "RunFacts",
    patches: "Sequence[Patch]",
    from_task: str,
) -> "Rerun":
    """Plan how a run is taken again."""
    from mesh.app.recorded_board import recorded_board
    from mesh.app.sandbox import rerun_of
    from mesh.operations.replay.task_answers import Period

    rerun = rerun_of(recorded, topology, patches=patches, from_task=from_task)
    at_ms = recorded.requests[0].at_ms
    async with recorded_board(log, session.topology, session.settings, Period(at_ms, at_ms)) as past:
        return rerun._replace(board=past.values(at_ms, but=recorded.writers))


async def _repeated(
    session: Session,
    topology: "Topology",
    agents: "Mapping[str, Agent]",
    recorded: "RunFacts",
    rerun: "Rerun",
    options: CallOptions,
    ignored: "Ignored",
    masked: bool,
) -> "AsyncIterator[tuple[RunFacts, RunDiff]]":
    from mesh.app.recording_replay import side_of
    from mesh.app.sandbox import run_in_sandbox
    from mesh.core.replay.run_diff import run_diff

    save = None if options.save is None else partial(_save, topology, recorded.run_id, Path(options.save))
    timeout_s = seconds("--timeout", options.timeout)
    with terminable(), session.output.progress(options.repeat if options.repeat > 1 else None) as bar:
        for number in range(1, options.repeat + 1):
            new = await run_in_sandbox(topology, agents, rerun, timeout_s=timeout_s, save=save, isolated=True)
            bar.advance(1, f"{number} of {options.repeat}")
            yield new, run_diff(side_of(recorded, masked=masked), side_of(new), ignored)


def _check_one(runs: int, repeat: int) -> None:
    """Raises InvalidInput unless exactly one run is made, which can be saved."""
    if runs == repeat == 1:
        return
    expected, got = ("one run", f"{runs} in the recording") if repeat == 1 else ("one repetition", f"--repeat {repeat}")
    raise InvalidInput(
        "one run is saved to a file",
        code="usage",
        where="--save",
        expected=expected,
        got=got,
        remedy="`mesh replay RUN --run --log recording:FILE` takes one run of a recording",
    )


async def _save(topology: "Topology", run_id: str, path: Path, log: "ReadLog") -> None:
    """Write the run of a sandbox as a recording. The file appears, or replaces another, when it is complete."""
    from mesh.app.embedded_board import embedded_changes
    from mesh.cli.commands.version import number
    from mesh.core.replay.recording_format import Masking
    from mesh.operations.replay.recording_export import ChosenRuns, RunMarks, export
    from mesh.settings import Settings

    chosen = ChosenRuns(RunMarks([run_id]), run_id, {"run": run_id})
    embedded = embedded_changes(log, topology, Settings(log=log.url, board="", board_prefix=topology.prefix))
    lines = export(log, topology, chosen, masking=Masking([]), version=number(), embedded=embedded)
    with saved_file(path) as file:
        async with aclosing(lines) as all_lines:
            async for line in all_lines:
                file.write(line)


def _tell_saved(session: Session, path: str, new: "RunFacts") -> None:
    if new.outcome is None:
        session.output.warn(("not saved: ", "yellow"), "the run has not ended; --timeout gives it more time")
    else:
        session.output.note(("saved: ", "dim"), path)


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
