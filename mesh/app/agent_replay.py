"""Give recorded tasks of one agent to a function of today, through the code by which a worker calls it.

Arguments and results are validated, time limits hold, and errors become failures as in a worker; nothing is appended to
a log. Each task sees the board as it stood when its record was stored, and its own writes.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
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
from mesh.runtime.execution.isolation import (
    PROCESSES_MAX,
    BatchRequest,
    ChildProcesses,
    IsolatedProcessDied,
    NotLoaded,
)
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
BATCH_MS: Final = 10
"""Time that the calls of one batch should take together: tasks that take longer are in a batch of their own."""
BATCH_TASKS_MAX: Final = 100


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
        file, processes_max = Path(folder) / "mesh.db", jobs or min(spec.lanes, PROCESSES_MAX)
        environment = _environment(topology, file)
        settings = Settings(log=f"sqlite:{file}", board_prefix=topology.prefix)
        processes = ChildProcesses(settings, past, processes_max=processes_max, output=STDERR)
        calls = _Calls(environment, processes, spec, agent, past, ignored, on_result)
        try:
            calls.caller.resources = await lifespans.enter(agent)
            async for batch in batches:
                for recorded in batch:
                    await calls.begin(recorded)
            await calls.end()
        finally:
            calls.close()
            await lifespans.close()
            await processes.close()


def _environment(topology: Topology, file: Path) -> Environment:
    """Return the environment of a worker whose log is never opened."""
    log = SqliteLog(file, clock=_BeforeAll())
    return Environment(
        log=log,
        groups=log,
        board=SqliteBoard(file, prefix=topology.prefix),
        topology=topology,
        clock=SystemClock(),
        options=WorkerOptions(),
        slots=MarkSlots(),
        isolated_processes=None,
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
    """Calls of one function, `spec.lanes` at the same time.

    Quick calls go to their process in batches, since a message costs more than such a call. A batch that kills its
    process or takes too long is called again task by task, so that one task gets the blame.
    """

    def __init__(
        self,
        environment: Environment,
        processes: ChildProcesses,
        spec: AgentSpec,
        agent: Agent,
        past: PastBoard,
        ignored: Ignored,
        on_result: Callable[[Compared], None],
    ) -> None:
        self._ignored, self._on_result, self._numbers = ignored, on_result, count()
        self._window = spec.lanes + QUEUED_MAX
        self._spec, self._where = spec, agent.where
        self.lanes: KeyLanes[Sequence[TaskAnswer]] = KeyLanes(self._call, lanes_max=spec.lanes)
        self.caller = Caller(
            environment, spec, agent, Counts(), cache=None, append_changes=_append_none, on_abandoned=self._abandon
        )
        self.caller.sandbox = True
        self.caller.board_of = partial(board_at, past)
        self._processes = processes if processes.can_run(agent) else None
        self._in_process = in_isolation(self._answer, agent.where, self._processes)
        self._batch: list[TaskAnswer] = []
        self._took_ms: float | None = None
        """Time of the last call. Until one has ended, calls are made one by one."""
        self._quick = asyncio.Semaphore(os.cpu_count() or 1)

    @property
    def _batch_tasks(self) -> int:
        """Tasks of the next batch: several only where calls are quick and have a process of their own."""
        if self._took_ms is None or self._processes is None:
            return 1
        return max(1, int(BATCH_MS / max(self._took_ms, BATCH_MS / BATCH_TASKS_MAX)))

    @property
    def _gate(self) -> AbstractAsyncContextManager[None]:
        """Bounds the processes for quick calls, which wait for nothing: each processor needs one."""
        quick = self._processes is not None and (self._took_ms is None or self._took_ms < BATCH_MS)
        return self._quick if quick else nullcontext()

    async def begin(self, recorded: TaskAnswer) -> None:
        """Call the function as soon as there is room. Each batch has a lane of its own."""
        self._batch.append(recorded)
        if len(self._batch) >= self._batch_tasks:
            await self._begin_batch()

    async def end(self) -> None:
        """Begin what is left and wait until all calls have ended."""
        if self._batch:
            await self._begin_batch()
        await self.lanes.wait_below(1)

    async def _begin_batch(self) -> None:
        batch, self._batch = self._batch, []
        untimed = self._took_ms is None and self._processes is not None
        await self.lanes.wait_below(1 if untimed else max(self._window // len(batch), self._spec.lanes))
        self.lanes.put(b"%d" % next(self._numbers), batch)

    def close(self) -> None:
        """Cancel what still runs."""
        self.caller.interrupt(abandon=False)
        self.lanes.cancel()
        self.caller.close()

    async def _call(self, batch: Sequence[TaskAnswer]) -> None:
        answers = await self._answer_together(batch) if len(batch) > 1 else None
        if answers is None:
            for recorded in batch:
                work = _Replayed(recorded)
                async with self._gate:
                    answer = await self._in_process(recorded.task, Attempt(work, None))
                if answer is not None:
                    self._compare(recorded, answer, (time.perf_counter() - work.began_s) * 1_000)
        else:
            for recorded, (answer, took_ms) in zip(batch, answers, strict=True):
                self._compare(recorded, answer, took_ms)

    async def _answer_together(self, batch: Sequence[TaskAnswer]) -> Sequence[tuple[Event, float]] | None:
        """Return the answers of a batch; None if its process died, cannot be had, or took longer than one task may."""
        assert self._processes is not None  # else a batch has one task
        order = BatchRequest(self._spec, self._where, [recorded.task for recorded in batch])
        try:
            async with self._gate, self._processes.acquire(self._where) as process:
                async with asyncio.timeout(self._spec.timeout_ms / 1_000):
                    return await process.answer_batch(order)
        except (IsolatedProcessDied, NotLoaded, TimeoutError):
            return None

    async def _answer(self, task: Event, attempt: Attempt) -> Event | None:
        cast(_Replayed, attempt.work).began_s = time.perf_counter()  # not while its process was started
        return await self.caller.answer(task, attempt)

    def _abandon(self, attempt: Attempt, answer: Event | None) -> None:
        self.lanes.abandon(attempt.runner)
        if answer is not None:
            work = cast(_Replayed, attempt.work)
            self._compare(work.recorded, answer, (time.perf_counter() - work.began_s) * 1_000)

    def _compare(self, recorded: TaskAnswer, new: Event, took_ms: float) -> None:
        masked: set[str] = set()
        differences = answer_differences(recorded.answer, new, self._ignored, masked)
        verdict = verdict_of(recorded.answer, new, differences, recorded.took_ms, took_ms)
        self._on_result(Compared(recorded, new, took_ms, verdict, differences, len(masked)))
        self._took_ms = took_ms


async def _append_none(changes: Sequence[BoardChange]) -> None:
    """Append nothing: only a cache asks for it, and a replay has none."""
