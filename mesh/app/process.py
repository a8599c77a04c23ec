"""One process of the mesh: services side by side in one event loop, over one log and one board.

`mesh up` runs one of these for its arguments, `mesh demo` and the test kit one for everything. Services do not know
each other; they meet only on the log.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from mesh.adapters.clock import SystemClock
from mesh.adapters.log_time import SkewWatch
from mesh.adapters.ports import Board, Clock, Log
from mesh.app.wiring import topic_specs
from mesh.core.errors import MeshError, WorkerSpent
from mesh.core.task.agent import Agent
from mesh.core.topology.model import Topology
from mesh.runtime.board_changelog import is_mirrored
from mesh.runtime.board_maintenance import BoardMaintainer
from mesh.runtime.execution.isolation import ChildProcesses, IsolatedProcesses
from mesh.runtime.topology_store import TopologyStore
from mesh.services.intake import Intake
from mesh.services.orchestrator import Orchestrator
from mesh.services.worker import Worker
from mesh.settings import Settings

SERVICES = ("intake", "orchestrator", "worker")


class Process:
    """Chosen services of one mesh in this process. `agents`: those that the worker here runs; none: no worker."""

    def __init__(
        self,
        log: Log,
        topology: Topology,
        settings: Settings,
        *,
        services: Sequence[str] = SERVICES,
        agents: Mapping[str, Agent] | None = None,
        board: Board | None = None,
        clock: Clock | None = None,
        name: str = "",
        away: bool = False,
        cells: IsolatedProcesses | None = None,
    ) -> None:
        """`name`: of this process in what it leaves on the log, another one for each; by default made by chance.
        `away`: it begins anew under that name, since the log was away. `cells`: where the worker calls a task that may
        kill its process; by default in child processes."""
        clock = clock or SystemClock()
        options: dict[str, Any] = {
            "records_max": settings.poll_records_max,
            "session_timeout_ms": settings.session_timeout_ms,
        }
        self.log, self.topology, self._clock = log, topology, clock
        self.orchestrator = None
        if "orchestrator" in services:
            self.orchestrator = Orchestrator(log, topology, clock, absence_ms=settings.worker_absence_ms, **options)
        self.intake = Intake(log, topology, clock, **options) if "intake" in services else None
        self.worker = self.keeper = None
        if "worker" in services and agents and board is not None:
            self.worker = Worker(
                log,
                board,
                topology,
                agents,
                clock,
                drain_timeout_ms=settings.drain_timeout_ms,
                grace_ms=settings.cancel_grace_ms,
                abandoned_max=settings.strays_max,
                holder=name,
                away=away,
                cells=cells or ChildProcesses(_with_prefix(settings, topology)),
                **options,
            )
            if is_mirrored(log, board):
                self.keeper = BoardMaintainer(log, board, topology, clock)
        self._topologies = TopologyStore(log, topology, clock)
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Ask every service to drain and end; `run` then returns."""
        self._stop.set()

    async def run(self) -> None:
        """Run until `stop`. An error of one service ends the others and is raised; a worker that is spent lets the
        others end in good order before. Raises ForeignLog if the log is another mesh's."""
        spent: list[WorkerSpent] = []
        if self.orchestrator is None:  # which keeps it itself
            await self._topologies.keep()
        async with asyncio.TaskGroup() as group:
            for service in (self.orchestrator, self.intake, self.keeper):
                if service is not None:
                    name = type(service).__name__.lower()
                    group.create_task(_told(service.run, self._stop, name), name=name)
            if self.worker is not None:
                group.create_task(self._work(self.worker, spent), name="worker")
            watching = group.create_task(SkewWatch(self.log, self._clock).run(), name="watch the clock")
            await self._stop.wait()
            watching.cancel()
        if spent:
            raise spent[0]

    async def _work(self, worker: Worker, spent: list[WorkerSpent]) -> None:
        try:
            await _told(worker.run, self._stop, "worker")
        except WorkerSpent as error:
            spent.append(error)
            self.stop()

    @property
    def abandoned_calls(self) -> int:
        """Calls of agents that were given up and go on; at the end, they would keep the event loop from closing."""
        return 0 if self.worker is None else self.worker.abandoned_calls

    async def wait_ready(self) -> None:
        """Returns when every service here has joined its group and restored what it was given."""
        if self.orchestrator is not None:
            await self.orchestrator.ready.wait()
        if self.intake is not None:
            await self.intake.ready.wait()
        if self.worker is not None:
            await self.worker.wait_ready()


def _with_prefix(settings: Settings, topology: Topology) -> Settings:
    """Settings for a process that has no topology: they name the prefix of the board's keys."""
    return settings.model_copy(update={"board_prefix": settings.board_prefix or topology.prefix})


async def _told(run: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event, name: str) -> None:
    """Run a service. Raises MeshError when it is cancelled from within: the process would seem to work without it."""
    try:
        await run(stop)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise MeshError(
            f"the {name} was cancelled from within",
            remedy="Start the process again; nothing is lost. What was cancelled stands above in this trace",
        ) from error


def tune_garbage_collector() -> None:
    """Make Python's cyclic collector rare and short, for a process that is a service and nothing else.

    Runs, tasks and events form no cycles and are freed by their counts; the collector only walks them, again and again
    (15 % of an orchestrator's time, measured). What lives now is frozen out of its sight.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@asynccontextmanager
async def running(process: Process, *, ready_timeout_s: float = 30.0) -> AsyncIterator[Process]:
    """Topics created, services up and ready inside the block; drained after it. Raises what a service raised."""
    await process.log.create_topics(topic_specs(process.topology))
    main = asyncio.get_running_loop().create_task(process.run(), name="services")
    ready = asyncio.get_running_loop().create_task(process.wait_ready(), name="ready")
    try:
        async with asyncio.timeout(ready_timeout_s):
            await asyncio.wait([main, ready], return_when=asyncio.FIRST_COMPLETED)
        if main.done():
            await main
        yield process
    finally:
        ready.cancel()
        process.stop()
        await main
