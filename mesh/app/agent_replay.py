"""Give recorded tasks of one agent to a function of today, through the code by which a worker calls it.

Arguments and results are validated, time limits hold, and errors become failures as in a worker; nothing is appended to
a log. Each task sees the board as it stood when its record was stored, and its own writes.
"""

import time
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, cast

from mesh.adapters.clock import SystemClock
from mesh.adapters.memory_board import board_at
from mesh.adapters.sqlite import SqliteBoard, SqliteLog
from mesh.core.board.changelog import BoardChange
from mesh.core.board.past_values import PastBoard
from mesh.core.protocol.event import Event
from mesh.core.replay.answer_diff import NOTHING, Ignored, answer_differences, verdict_of
from mesh.core.task.agent import Agent
from mesh.core.topology.model import AgentSpec, Topology
from mesh.core.verification.record_diff import Difference
from mesh.operations.replay.task_answers import TaskAnswer
from mesh.runtime.execution.isolation import PROCESSES_MAX, ChildProcesses
from mesh.runtime.execution.key_lanes import KeyLanes
from mesh.services.worker.assignment import Work
from mesh.services.worker.attempt import Attempt, Caller
from mesh.services.worker.counts import Counts
from mesh.services.worker.environment import Environment, MarkSlots, WorkerOptions
from mesh.services.worker.lifespans import Lifespans
from mesh.services.worker.poison import in_isolation
from mesh.settings import Settings

FOLDER_PREFIX: Final = "mesh-replay-"
"""Name of the temporary folder of a replay begins with it; a replay that is killed leaves nothing else behind."""
STDERR: Final = 2
"""File descriptor of standard error, where what functions print goes in a replay."""
QUEUED_MAX: Final = 500
"""Tasks that may be queued while others run."""


class Compared(NamedTuple):
    """A recorded task, its new answer and the verdict on that (`answer_diff.VERDICTS`)."""

    recorded: TaskAnswer
    new: Event
    took_ms: float
    verdict: str
    differences: Sequence[Difference]
    masked: int = 0
    """Places that were not compared, since their recorded values are masked."""


async def replay_agent(
    topology: Topology,
    name: str,
    agent: Agent,
    batches: AsyncIterable[Sequence[TaskAnswer]],
    past: PastBoard,
    *,
    on_result: Callable[[Compared], None],
    jobs: int = 0,
    ignored: Ignored = NOTHING,
) -> None:
    """Call an agent's function for each recorded task and compare; `on_result` gets each result, in any order.

    `jobs`: calls at the same time; 0: as many as a worker makes. Raises MeshError if a lifespan fails.
    """
    spec = topology.agents[name]
    spec = replace(spec, lanes=jobs or spec.lanes)
    lifespans = Lifespans()
    with TemporaryDirectory(prefix=FOLDER_PREFIX) as folder:
        environment = _environment(topology, Path(folder), past, jobs or min(spec.lanes, PROCESSES_MAX))
        calls = _Calls(environment, spec, agent, past, ignored, on_result)
        try:
            calls.caller.resources = await lifespans.enter(agent)
            async for batch in batches:
                for recorded in batch:
                    await calls.begin(recorded)
            await calls.lanes.wait_below(1)
        finally:
            calls.close()
            await lifespans.close()
            assert environment.isolated_processes is not None  # made above
            await environment.isolated_processes.close()


def _environment(topology: Topology, folder: Path, past: PastBoard, processes_max: int) -> Environment:
    """Return the environment of a worker whose log is never opened."""
    file = folder / "mesh.db"
    settings = Settings(log=f"sqlite:{file}", board_prefix=topology.prefix)
    return Environment(
        log=SqliteLog(file, clock=_BeforeAll()),
        board=SqliteBoard(file, prefix=topology.prefix),
        topology=topology,
        clock=SystemClock(),
        options=WorkerOptions(),
        slots=MarkSlots(),
        isolated_processes=ChildProcesses(settings, past, processes_max=processes_max, output=STDERR),
        on_abandoned=lambda: None,
    )


class _BeforeAll(SystemClock):
    """A clock by which no recorded deadline has passed."""

    def now_ms(self) -> int:
        return 0


class _Replayed(Work):
    """A recorded task in work, in the place of a record of a worker."""

    __slots__ = ("began_s", "recorded")

    def __init__(self, recorded: TaskAnswer) -> None:
        self.recorded, self.began_s = recorded, 0.0

    @property
    def death_count(self) -> int:
        return 0


class _Calls:
    """Calls of one function, `spec.lanes` at the same time."""

    def __init__(
        self,
        environment: Environment,
        spec: AgentSpec,
        agent: Agent,
        past: PastBoard,
        ignored: Ignored,
        on_result: Callable[[Compared], None],
    ) -> None:
        self._ignored, self._on_result, self._numbers = ignored, on_result, count()
        self._window = spec.lanes + QUEUED_MAX
        self.lanes: KeyLanes[TaskAnswer] = KeyLanes(self._call, lanes_max=spec.lanes)
        self.caller = Caller(
            environment, spec, agent, Counts(), cache=None, append_changes=_append_none, on_abandoned=self._abandon
        )
        self.caller.sandbox = True
        self.caller.board_of = partial(board_at, past)
        processes = environment.isolated_processes
        assert processes is not None  # see _environment
        self._in_process = in_isolation(self._answer, agent.where, processes if processes.can_run(agent) else None)

    async def begin(self, recorded: TaskAnswer) -> None:
        """Call the function as soon as there is room. Each task has a lane of its own."""
        await self.lanes.wait_below(self._window)
        self.lanes.put(b"%d" % next(self._numbers), recorded)

    def close(self) -> None:
        """Cancel what still runs."""
        self.caller.interrupt(abandon=False)
        self.lanes.cancel()
        self.caller.close()

    async def _call(self, recorded: TaskAnswer) -> None:
        work = _Replayed(recorded)
        answer = await self._in_process(recorded.task, Attempt(work, None))
        if answer is not None:
            self._compare(work, answer)

    async def _answer(self, task: Event, attempt: Attempt) -> Event | None:
        cast(_Replayed, attempt.work).began_s = time.perf_counter()  # not while its process was started
        return await self.caller.answer(task, attempt)

    def _abandon(self, attempt: Attempt, answer: Event | None) -> None:
        self.lanes.abandon(attempt.runner)
        if answer is not None:
            self._compare(cast(_Replayed, attempt.work), answer)

    def _compare(self, work: _Replayed, new: Event) -> None:
        took_ms, recorded = (time.perf_counter() - work.began_s) * 1_000, work.recorded
        masked: set[str] = set()
        differences = answer_differences(recorded.answer, new, self._ignored, masked)
        verdict = verdict_of(recorded.answer, new, differences, recorded.took_ms, took_ms)
        self._on_result(Compared(recorded, new, took_ms, verdict, differences, len(masked)))


async def _append_none(changes: Sequence[BoardChange]) -> None:
    """Append nothing: only a cache asks for it, and a replay has none."""
