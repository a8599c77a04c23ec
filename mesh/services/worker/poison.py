"""Begin records that may have been in work when a worker died: with a mark, in an isolated process, or not at all.

The rules are in `mesh.core.task.poison`.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from mesh.adapters.diagnostics import diagnostics
from mesh.core.protocol.event import Event
from mesh.core.task.agent import Agent
from mesh.core.task.poison import DEATHS_MAX, ISOLATE_DEATHS_MIN, ISOLATED_DEATHS_MAX, MARKED_MAX
from mesh.runtime.execution.isolation import IsolatedProcess, IsolatedProcesses, NotLoaded
from mesh.services.worker.assignment import PartitionAssignment, Work
from mesh.services.worker.attempt import Attempt
from mesh.services.worker.environment import MarkSlots
from mesh.services.worker.outbox import Changes

_log = diagnostics("worker")


Answering = Callable[[Event, Attempt], Awaitable[Event | None]]
"""A function that answers a task by one attempt."""


class TaskRunner(Protocol):
    """The part of a consumer that runs suspected tasks."""

    def new_changes(self) -> Changes | None:
        """Return the collector for board changes of one attempt; None when changes are not mirrored."""
        ...

    async def commit_marks(self, assignment: PartitionAssignment) -> bool:
        """Return when the marks of a partition are committed; False when the partition was lost."""
        ...

    async def run_attempt(self, attempt: Attempt) -> None:
        """Run an attempt and send its answer."""
        ...

    def mark_poison(self, work: Work, deaths: int) -> None:
        """Answer a record as `crash_loop` without beginning it."""
        ...

    def request_commit(self) -> None:
        """Let the next periodic commit include the marks."""
        ...

    def is_ending(self) -> bool:
        """Return whether the consumer ends for an error. CommitMarks then stay: a task in work may be the cause."""
        ...


class PoisonGuard:
    """Runs suspected tasks of one agent. `slots` are shared by all agents of the process."""

    def __init__(self, agent: Agent, slots: MarkSlots, processes: IsolatedProcesses | None, runner: TaskRunner) -> None:
        self._where, self._slots, self._runner = agent.where, slots, runner
        self._processes = processes if processes is not None and processes.can_run(agent) else None

    def around(self, answer: Answering) -> Answering:
        """Return `answer` with every call in an isolated process, not only that of a suspected task."""
        return in_isolation(answer, self._where, self._processes)

    async def handle(self, work: Work) -> None:
        """Run a suspected task to an answer."""
        deaths, processes = work.death_count, self._processes
        is_suspected = ISOLATE_DEATHS_MIN <= deaths < ISOLATED_DEATHS_MAX
        if processes is not None and is_suspected and await self._isolate(work, processes):
            return
        if deaths >= DEATHS_MAX:
            self._runner.mark_poison(work, deaths)
        else:
            await self._run_in_worker(work, 1 if deaths < ISOLATE_DEATHS_MIN else MARKED_MAX)

    async def _isolate(self, work: Work, processes: IsolatedProcesses) -> bool:
        """Run a task in an isolated process. Returns False when the function cannot be loaded there."""
        try:
            async with processes.acquire(self._where) as process:
                if work.assignment.is_owned:  # it may have been revoked during the wait
                    await self._run(work, 0, process)
                return True
        except NotLoaded as error:
            _log.warning("a suspected task is begun in its worker", function=self._where, reason=str(error))
            return False

    async def _run_in_worker(self, work: Work, slots: int) -> None:
        """Run a task in this process. A death blames all marked tasks of a process, so they are few, or one."""
        await self._slots.acquire(slots)
        await self._run(work, slots, None)

    async def _run(self, work: Work, slots: int, process: IsolatedProcess | None) -> None:
        """Mark a task, wait until the mark is committed, run it, and remove the mark."""
        assignment, watch, offset = work.assignment, work.assignment.watch, work.record.offset

        def release() -> None:
            if not self._runner.is_ending():
                watch.unmark(offset)
                self._runner.request_commit()
            self._slots.release(slots)

        attempt = Attempt(work, self._runner.new_changes())
        attempt.release, attempt.isolated_process = release, process
        try:
            watch.mark(offset)
            if await self._runner.commit_marks(assignment):
                await self._runner.run_attempt(attempt)
                if not attempt.abandoned and not attempt.killed and not self._runner.is_ending():
                    watch.clear(offset)
        finally:
            if not attempt.abandoned:
                release()


def in_isolation(answer: Answering, where: str, processes: IsolatedProcesses | None) -> Answering:
    """Return `answer` with each call in an isolated process. A function that none can load is called in this one."""
    if processes is None:
        return answer

    async def isolated(task: Event, attempt: Attempt) -> Event | None:
        try:
            async with processes.acquire(where) as process:
                attempt.isolated_process = process
                return await answer(task, attempt)
        except NotLoaded as error:
            _log.warning("a task is replayed in the process of the replay", function=where, reason=str(error))
            return await answer(task, attempt)

    return isolated
