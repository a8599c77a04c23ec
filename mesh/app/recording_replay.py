"""Take every run of a recording again: recordings as tests."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

from mesh.adapters.recording import RecordingLog, recorded_head
from mesh.app.sandbox import rerun_of, run_in_sandbox
from mesh.core.errors import InvalidInput
from mesh.core.replay.answer_diff import NOTHING, Ignored
from mesh.core.replay.run_diff import RunDiff, RunSide, run_diff
from mesh.core.task.agent import Agent
from mesh.core.topology.model import Topology
from mesh.operations.replay.past_board import read_past_board
from mesh.operations.replay.run_facts import RunFacts, facts_of
from mesh.operations.replay.run_replay import replay_each
from mesh.operations.replay.task_answers import Period


class Repetition(NamedTuple):
    """A recorded run, what came of it today, and the comparison of both."""

    recorded: RunFacts
    new: RunFacts
    diff: RunDiff


async def replay_recording(
    path: str | Path,
    topology: Topology,
    agents: Mapping[str, Agent],
    *,
    ignored: Ignored = NOTHING,
    timeout_s: float = 60.0,
    isolated: bool = False,
) -> AsyncGenerator[Repetition]:
    """Take each run of a recording again in a sandbox, in the order of their requests. `isolated`: see `sandbox`.

    Raises NotFound for a file without a whole run, LogUnavailable, InvalidInput for one that is cut or no recording.
    """
    log, known = RecordingLog(path), recorded_head(path).topology
    await log.start()
    try:
        if log.flaw:
            what = f"the recording is cut: {log.flaw}"
            remedy = "Export the run again; `mesh replay` shows what is in it"
            raise InvalidInput(what, code="unparseable", where=str(path), remedy=remedy)
        past = await read_past_board(log, known, Period())
        async with aclosing(replay_each(log, known)) as replays:
            async for replay in replays:
                recorded = facts_of(replay)
                at_ms = recorded.requests[0].at_ms
                rerun = rerun_of(recorded, topology, board=past.values(at_ms, but=recorded.writers))
                new = await run_in_sandbox(topology, agents, rerun, timeout_s=timeout_s, isolated=isolated)
                sides = side_of(recorded, masked=log.is_masked), side_of(new)
                yield Repetition(recorded, new, run_diff(*sides, ignored))
    finally:
        await log.close()


def side_of(facts: RunFacts, *, masked: bool = False) -> RunSide:
    """Return what is compared of a run. `masked`: whether it comes from a recording in which values are masked."""
    return RunSide(facts.outcome, facts.tasks, facts.last_answers, masked)
