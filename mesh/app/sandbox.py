"""The sandbox: a private mesh in a temporary folder, in which the functions of today take a recorded run again.

Intake, orchestrator and worker are the real ones. The request keeps its id, so runs and tasks have the ids that they
have in the recording. The log's clock begins at the recorded time of the request. The board holds what it held then.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Board, Log, ReadLog
from mesh.adapters.sqlite import SqliteBoard, SqliteLog
from mesh.adapters.sqlite.storage.clock import FileClock
from mesh.adapters.sqlite.storage.file import SqliteFile
from mesh.app.agent_replay import FOLDER_PREFIX, STDERR
from mesh.app.process import Process, running
from mesh.core.board.past_values import PastValue
from mesh.core.dead_letters.patch import Patch, added_fields, apply_patches
from mesh.core.errors import InvalidInput
from mesh.core.protocol.event import Event
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import TopicPartition
from mesh.core.publishing.effect_records import inbox_record
from mesh.core.task.agent import Agent
from mesh.core.topology.model import Topology
from mesh.operations.replay.run_facts import RunFacts, read_run_facts
from mesh.runtime.execution.isolation import START_TIMEOUT_S, ChildProcesses, NotLoaded
from mesh.runtime.loop import append_all
from mesh.services.worker.environment import Recorded
from mesh.settings import Settings

DRAIN_TIMEOUT_MS: Final = 100
"""Time for running calls when the sandbox ends: of a run that did not end in time, or at Ctrl-C."""
VALUES_AT_ONCE: Final = 500
"""Values of the board written together."""
BOARD_TIMEOUT_MS: Final = 10_000
POLL_WAIT_MS: Final = 500
POLL_RECORDS_MAX: Final = 1_000


class Rerun(NamedTuple):
    """Options of running a recorded run again."""

    requests: Sequence[Event]
    recorded: Recorded
    board: Sequence[PastValue] = ()
    """Values of the board at the time of the request."""
    added: Sequence[str] = ()
    """Paths of the fields that the patches add."""


def rerun_of(
    facts: RunFacts,
    topology: Topology,
    *,
    patches: Sequence[Patch] = (),
    from_task: str = "",
    board: Sequence[PastValue] = (),
) -> Rerun:
    """Plan a repetition. `patches` change the payload of the first request, or of the task to begin with.

    `from_task`: id of a task, or its beginning, or the name of an agent whose first task it is. Tasks that do not
    follow from it get their recorded answers, and their functions are not called. Raises InvalidInput.
    """
    requests = list(facts.requests)
    inputs: dict[str, bytes] = {}
    answers: dict[str, Event] = {}
    first = _task_named(facts, from_task) if from_task else requests[0]
    if from_task:
        if patches:
            inputs[first.task_id] = apply_patches(first.data, first.content_type, patches)
        again = _following(facts, topology, first.task_id)
        answers = {id: answer for id, answer in facts.answers.items() if answer.task_id not in again}
    else:
        requests[0] = replace(first, data=apply_patches(first.data, first.content_type, patches))
    recording = Recorded(facts.times, answers, inputs, {facts.run_id: list(facts.answers)})
    return Rerun(requests, recording, board, added_fields(first.data, first.content_type, patches))


def _task_named(facts: RunFacts, name: str) -> Event:
    named = [task for task in facts.tasks.values() if task.agent == name][:1]
    named = named or [task for id, task in facts.tasks.items() if id.startswith(name)]
    if len(named) != 1:
        known = ", ".join(f"{task.agent} {id[:12]}" for id, task in list(facts.tasks.items())[:8])
        raise InvalidInput(
            f"{len(named)} tasks of the run go by that name" if named else "no task of the run goes by that name",
            code="ambiguous" if named else "bad_value",
            where="--from",
            expected=f"a task's id, its beginning, or an agent: {known}",
            got=name[:64],
        )
    return named[0]


def _following(facts: RunFacts, topology: Topology, task_id: str) -> set[str]:
    """Return the task and all recorded ones that may follow from it: by cause, or as a join of what it emits."""
    again = {task_id}
    emitted: set[str] = set()
    begun = False
    for id, task in facts.tasks.items():
        begun = begun or id == task_id
        spec = topology.agents.get(task.agent)
        cause = next((answer for answer in facts.last_answers.values() if answer.id == task.cause_id), None)
        joins = spec is not None and spec.join and not emitted.isdisjoint(spec.on)
        if begun and (id in again or joins or (cause is not None and cause.task_id in again)):
            again.add(id)
            emitted.update(() if spec is None else spec.emits)
    return again


class ShiftedClock(SystemClock):
    """The clock of the machine, set to another time."""

    def __init__(self, now_ms: int) -> None:
        self._shift_ms = now_ms - super().now_ms()

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return super().now_ms() + self._shift_ms


class Sandbox:
    """A private mesh that is running. Make one with `sandbox`."""

    def __init__(self, log: Log, topology: Topology) -> None:
        self.log, self._topology = log, topology

    async def run(self, requests: Sequence[Event], *, timeout_s: float) -> RunFacts:
        """Take one run again and return what came of it. Its outcome is None if it has not ended in that time."""
        run_id = requests[0].run_id
        records = [inbox_record(_as_new(request), self._topology) for request in requests]
        await append_all(self.log, records, self._topology)
        with suppress(TimeoutError):  # what it did so far is compared
            async with asyncio.timeout(timeout_s):
                await self._ended(run_id)
        return await read_run_facts(self.log, self._topology, run_id)

    async def _ended(self, run_id: str) -> None:
        key, topic = run_id.encode(), self._topology.outcomes
        home = partition_of(key, len(await self.log.bounds(topic)))
        reader = self.log.reader({TopicPartition(topic, home): 0})
        try:
            while not any(
                record.key == key for record in await reader.poll(records_max=POLL_RECORDS_MAX, wait_ms=POLL_WAIT_MS)
            ):
                pass
        finally:
            await reader.close()


async def run_in_sandbox(
    topology: Topology,
    agents: Mapping[str, Agent],
    rerun: Rerun,
    *,
    timeout_s: float,
    save: Callable[[ReadLog], Awaitable[None]] | None = None,
    isolated: bool = False,
) -> RunFacts:
    """Take a run again in a sandbox of its own and return what came of it; see `Sandbox.run`.

    `save`: reads the log of a run that has ended, before the log is removed. `isolated`: see `sandbox`.
    """
    at_ms = rerun.requests[0].at_ms
    made = sandbox(topology, agents, at_ms=at_ms, recorded=rerun.recorded, board=rerun.board, isolated=isolated)
    async with made as box:
        facts = await box.run(rerun.requests, timeout_s=timeout_s)
        if save is not None and facts.outcome is not None:
            await save(box.log)
        given = rerun.recorded.inputs
        tasks = {id: replace(task, data=given.get(id, task.data)) for id, task in facts.tasks.items()}
        return facts._replace(tasks=tasks)


@asynccontextmanager
async def sandbox(
    topology: Topology,
    agents: Mapping[str, Agent],
    *,
    at_ms: int,
    recorded: Recorded,
    board: Sequence[PastValue] = (),
    isolated: bool = False,
) -> AsyncIterator[Sandbox]:
    """Start a mesh in a temporary folder, which is removed at the end. `at_ms`: where the log's clock begins.

    `isolated`: functions that a module holds are called in other processes, whose output goes to standard error. So
    one that blocks or ends its process harms only its own answer.
    """
    async with AsyncExitStack() as exits:
        folder = exits.enter_context(TemporaryDirectory(prefix=FOLDER_PREFIX))
        file, clock = SqliteFile(Path(folder) / "mesh.db"), ShiftedClock(at_ms)
        file.clock = FileClock(clock)
        log = SqliteLog(file)
        store = SqliteBoard(file, prefix=topology.prefix, timeout_ms=BOARD_TIMEOUT_MS)
        await log.start()
        exits.push_async_callback(log.close)
        await store.start()
        exits.push_async_callback(store.close)
        await _fill(store, board)
        settings = Settings(log=log.url, board="", board_prefix=topology.prefix, drain_timeout_ms=DRAIN_TIMEOUT_MS)
        processes = ChildProcesses(settings, output=STDERR)
        process = Process(
            log, topology, settings, agents=agents, board=store, clock=clock, isolated_processes=processes
        )
        if process.worker is not None:
            process.worker.replay(recorded, isolated=isolated)
        await exits.enter_async_context(running(process))
        if isolated:
            await _warm(processes, agents)
        yield Sandbox(log, topology)


async def _warm(processes: ChildProcesses, agents: Mapping[str, Agent]) -> None:
    """Start a process that has loaded the functions, so that the time limit of a run does not count that."""
    with suppress(TimeoutError):  # the calls say why
        async with asyncio.timeout(START_TIMEOUT_S):
            for agent in filter(processes.can_run, agents.values()):
                with suppress(NotLoaded):  # called in this process
                    async with processes.acquire(agent.where):
                        pass


async def _fill(board: Board, values: Sequence[PastValue]) -> None:
    """Write past values on an empty board."""
    for start in range(0, len(values), VALUES_AT_ONCE):
        await asyncio.gather(
            *(
                board.put(value.key, value.value, by=value.by)
                for value in values[start : start + VALUES_AT_ONCE]
                if value.value is not None
            )
        )


def _as_new(request: Event) -> Event:
    """Return a request for the sandbox: its deadline counts from when it is stored there."""
    if request.expiry_ms is None:
        return replace(request, origin="")
    return replace(request, origin="", expiry_ms=min(-1, request.at_ms - request.expiry_ms))
