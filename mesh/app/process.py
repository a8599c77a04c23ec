"""One process of the mesh: services side by side in one event loop, over one log and one board.

`mesh up` runs one of these for its arguments, `mesh demo` and the test kit one for everything. Services do not know
each other; they meet only on the log.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Any

from mesh.adapters.clock import SystemClock
from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.log_time import SkewWatch
from mesh.adapters.ports import Board, Clock, Groups, Log
from mesh.app.lag_watch import LagWatch
from mesh.app.wiring import open_window_source, topic_specs
from mesh.core.errors import MeshError, WorkerSpent
from mesh.core.task.agent import Agent
from mesh.core.topology.model import Topology
from mesh.runtime.board_changelog import is_mirrored
from mesh.runtime.board_maintenance import BoardMaintainer
from mesh.runtime.execution.isolation import ChildProcesses, IsolatedProcesses
from mesh.runtime.loop import Holding
from mesh.runtime.topology_store import TopologyStore
from mesh.services.intake import Intake
from mesh.services.monitor import Monitor
from mesh.services.orchestrator import Orchestrator
from mesh.services.worker import Worker, WorkerOptions
from mesh.settings import Settings

SERVICES = ("intake", "orchestrator", "worker")
"""The services of a process by default: those that a run needs. `monitor` is a further one."""
_log = diagnostics("process")


class Process:
    """The chosen services of one mesh in this process. `agents`: those of the worker here; none: no worker."""

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
        after_outage: bool = False,
        isolated_processes: IsolatedProcesses | None = None,
        groups: Groups | None = None,
    ) -> None:
        """`name`: unique name of this process in its records on the log; random by default. `after_outage`: the process
        begins again under that name because the log was away. `isolated_processes`: where tasks run that may kill their
        process; child processes by default. `groups`: where workers join the groups of agents, by default the log."""
        clock = clock or SystemClock()
        options: dict[str, Any] = {
            "records_max": settings.poll_records_max,
            "session_timeout_ms": settings.session_timeout_ms,
        }
        self.log, self.topology, self._clock = log, topology, clock
        self.orchestrator = None
        if "orchestrator" in services:
            absence_ms, share = settings.worker_absence_ms, settings.trace_decisions
            self.orchestrator = Orchestrator(log, topology, clock, absence_ms=absence_ms, traced_share=share, **options)
        self.intake = Intake(log, topology, clock, **options) if "intake" in services else None
        self.monitor = None
        if "monitor" in services:
            source = open_window_source(settings, topology) if tuple(services) == ("monitor",) else None
            self.monitor = Monitor(log, topology, clock, **options, source=source)
        self.worker = self.board_maintainer = None
        if "worker" in services and agents and board is not None:
            self.worker = Worker(
                log,
                board,
                topology,
                agents,
                clock,
                _worker_options(settings, name=name or token_hex(8), after_outage=after_outage),
                isolated_processes=isolated_processes or ChildProcesses(_with_prefix(settings, topology)),
                groups=groups,
            )
            if is_mirrored(log, board):
                self.board_maintainer = BoardMaintainer(log, board, topology, clock)
        self._topologies = TopologyStore(log, topology, clock)
        self._stop = asyncio.Event()
        self.lag: LagWatch | None = None
        """The lag of all groups; None where it is not watched."""
        self.services = frozenset(services)
        self.ended: set[str] = set()
        """Services that have ended although the process goes on."""

    def stop(self) -> None:
        """Ask every service to drain and end; `run` then returns."""
        self._stop.set()

    def watch_lag(self) -> None:
        """Let an orchestrator's process know the lag of all groups: also where no worker runs. Call before `run`."""
        if self.orchestrator is not None:
            self.lag = LagWatch(self.log, self.topology, self._clock)

    async def run(self) -> None:
        """Run until `stop`. An error of one service ends the others and is raised.

        WorkerSpent is raised after the other services ended in good order. Raises ForeignLog if the log belongs to
        another mesh.
        """
        spent: list[WorkerSpent] = []
        if self.orchestrator is None:  # the orchestrator stores the topology itself
            await self._topologies.keep()
        async with asyncio.TaskGroup() as group:
            for service in (self.orchestrator, self.intake, self.board_maintainer):
                if service is not None:
                    name = type(service).__name__.lower()
                    group.create_task(_run_service(service.run, self._stop, name), name=name)
            if self.worker is not None:
                group.create_task(self._work(self.worker, spent), name="worker")
            if self.monitor is not None:
                group.create_task(self._observe(self.monitor), name="monitor")
            watching = [group.create_task(SkewWatch(self.log, self._clock).run(), name="watch the clock")]
            if self.lag is not None:
                watching.append(group.create_task(self.lag.run(), name="watch the lag"))
            await self._stop.wait()
            for task in watching:
                task.cancel()
        if spent:
            raise spent[0]

    async def _work(self, worker: Worker, spent: list[WorkerSpent]) -> None:
        try:
            await _run_service(worker.run, self._stop, "worker")
        except WorkerSpent as error:
            spent.append(error)
            self.stop()

    async def _observe(self, monitor: Monitor) -> None:
        """Run a monitor. Its end is logged, whatever the reason: delivery goes on without it."""
        try:
            await monitor.run(self._stop)
        except Exception as error:  # noqa: BLE001  # a defect of the monitor must not end agents
            self.ended.add("monitor")
            reason = f"{type(error).__name__}: {error}"
            _log.error("the monitor has ended; delivery goes on without it", reason=reason)

    @property
    def stopping(self) -> bool:
        """Whether the process was asked to end."""
        return self._stop.is_set()

    def holdings(self) -> list[Holding]:
        """Return what the services hold, one entry for each of their groups."""
        found = [] if self.worker is None else [each.partitions.holding for each in self.worker.consumers.values()]
        own = (self.orchestrator, self.intake, self.monitor)
        found += [holding for each in own if each is not None and (holding := each.holding) is not None]
        return found

    @property
    def abandoned_calls(self) -> int:
        """Number of abandoned calls that still run; at the end they would keep the event loop from closing."""
        return 0 if self.worker is None else self.worker.abandoned_calls

    async def wait_ready(self) -> None:
        """Return when every service here has joined its group and restored its partitions."""
        if self.orchestrator is not None:
            await self.orchestrator.ready.wait()
        if self.intake is not None:
            await self.intake.ready.wait()
        if self.worker is not None:
            await self.worker.wait_ready()


def _worker_options(settings: Settings, *, name: str, after_outage: bool) -> WorkerOptions:
    return WorkerOptions(
        records_max=settings.poll_records_max,
        session_timeout_ms=settings.session_timeout_ms,
        drain_timeout_ms=settings.drain_timeout_ms,
        grace_ms=settings.cancel_grace_ms,
        abandoned_max=settings.strays_max,
        after_outage=after_outage,
        holder=name,
    )


def _with_prefix(settings: Settings, topology: Topology) -> Settings:
    """Return settings that name the prefix of the board's keys, for a process without a topology."""
    return settings.model_copy(update={"board_prefix": settings.board_prefix or topology.prefix})


async def _run_service(run: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event, name: str) -> None:
    """Run a service. Raises MeshError when code inside it cancels it: the process would seem to work without it."""
    try:
        await run(stop)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise MeshError(
            f"the {name} was cancelled by code inside it",
            remedy="Start the process again; nothing is lost. The traceback shows the cancelled code",
        ) from error


def tune_garbage_collector() -> None:
    """Make Python's cyclic garbage collector rare and short, for a process that runs only services.

    Runs, tasks and events form no cycles and are freed by reference counts. The collector would only traverse them
    (15 % of an orchestrator's time, measured). Objects that exist now are frozen: it skips them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@asynccontextmanager
async def running(process: Process, *, ready_timeout_s: float = 30.0) -> AsyncIterator[Process]:
    """Create topics and run services inside the block, drain them after it. Raises the error of a service."""
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
