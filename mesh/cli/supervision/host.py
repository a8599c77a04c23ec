"""Runs services of the mesh in this process and in worker processes, until a signal."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mesh.adapters.machine_limits import environment_fault
from mesh.cli.framework.logs import Reporter
from mesh.cli.framework.session import Session, embedded_path, short
from mesh.cli.framework.signals import Stop, Stopped
from mesh.cli.framework.text import counted, took
from mesh.cli.supervision.watchdog import Watchdog
from mesh.core.address import host_and_port
from mesh.core.errors import BoardUnavailable, MeshError, leaf_errors
from mesh.runtime.execution.loop_guard import GuardedLoop

if TYPE_CHECKING:
    from mesh.adapters.ports import Board, Log
    from mesh.app.endpoints import Endpoints, Missing
    from mesh.app.process import Process
    from mesh.cli.supervision.worker_processes import Children
    from mesh.core.scaling.policy import ScalingRule
    from mesh.core.task.agent import Agent

BACKOFF_S_MAX: Final = 5.0
"""The longest pause between two tries to reach an outside system."""


class Plan(NamedTuple):
    """The services and agents that a host runs."""

    services: tuple[str, ...]
    agents: "Mapping[str, Agent]"
    workers: int = 1
    rule: "ScalingRule | None" = None
    create_topics: bool = False
    ready_file: int | None = None
    """In a child process: the file descriptor for the ready signal."""
    http: tuple[str, int] | None = None
    """Host and port of metrics and health; a child adds its number to the port. None: they are not served."""
    folder: str = "."
    """The working directory before any module of an agent was imported."""

    @property
    def children(self) -> int:
        """The number of child processes at the start; 0: the worker runs in this process."""
        if self.rule is not None:
            return self.rule.workers_min
        return self.workers if "worker" in self.services and self.workers > 1 else 0


class Host:
    """Runs the chosen services and their child processes until a signal."""

    def __init__(self, session: Session, reporter: Reporter, stop: Stop, plan: Plan) -> None:
        self._session, self._reporter, self._stop, self._plan = session, reporter, stop, plan
        self._workers = plan.children
        self._services = tuple(s for s in plan.services if not (self._workers and s == "worker"))
        self._agents = plan.agents
        self._embedded = embedded_path(session.settings.log) is not None
        self._create_topics = plan.create_topics or self._embedded
        self._name = token_hex(8)
        """The same after an outage of the log, so that its own unfinished tasks are not counted as deaths."""
        self._began = time.monotonic()
        self._process: Process | None = None
        self._changes_reported = False
        """The changes of topics.yaml for open runs were reported."""
        self._services_ready = asyncio.Event()
        """Set once the services of this process are ready."""
        self._children: Children | None = None
        self._endpoints: Endpoints | None = None
        self._address = ""
        """Where metrics and health are served."""

    @property
    def abandoned_calls(self) -> int:
        """Calls of agents that do not end."""
        return 0 if self._process is None else self._process.abandoned_calls

    async def run(self) -> None:
        """Run until the signal. Raises permanent errors."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, GuardedLoop):
            loop.report = self._reporter.warning
        async with AsyncExitStack() as exits:
            if self._plan.http is not None:
                await self._open_http(*self._plan.http, exits)
            if self._plan.ready_file is not None:
                asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._stop_with_parent)
            else:
                self._announce()
            if await self._retry_while_unreachable(self._check_topics):
                async with self._spans() if self._services else nullcontext():
                    await self._serve()

    async def _open_http(self, host: str, port: int, exits: AsyncExitStack) -> None:
        from mesh.adapters.exposition.http_server import listen, served
        from mesh.app.endpoints import Endpoints

        opened = listen(host, port)
        self._endpoints = Endpoints(self._session.topology, self._missing_children)
        self._address = host_and_port(host, opened.getsockname()[1])
        await exits.enter_async_context(served(opened, self._endpoints.answers))

    def _missing_children(self) -> "list[Missing]":
        from mesh.app.endpoints import Missing

        children = self._children
        if not self._workers or (children is not None and children.settled):
            return []
        wanted = self._workers if children is None else children.number
        return [Missing("workers", f"not all worker processes are ready; wanted: {wanted}")]

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            if self._services:
                group.create_task(self._retry_while_unreachable(self._run_process))
            if self._workers:
                group.create_task(self._run_children())

    async def _retry_while_unreachable(self, do: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> bool:
        """Repeat `do` while an outside system is unreachable. Return False if a signal came before it was done.

        `do` sets its event once it works: the backoff then starts again. Raises permanent errors.
        """
        backoff_s = 1.0
        while not self._stop.event.is_set():
            works = asyncio.Event()
            try:
                await do(works)
            except Stopped:
                return False
            except (MeshError, OSError, MemoryError, BaseExceptionGroup) as error:
                found = [environment_fault(leaf) or leaf for leaf in leaf_errors(error)]
                if not all(isinstance(leaf, MeshError) and leaf.retriable for leaf in found):
                    raise
                if self._embedded and not self._services_ready.is_set():
                    raise  # waiting does not help a file that cannot be opened
                if self._endpoints is not None:
                    self._endpoints.process, self._endpoints.reason = None, str(found[0])
                backoff_s = 1.0 if works.is_set() else backoff_s
                self._reporter.warning(f"{found[0]}; tried again in {backoff_s:g} s", again_in_s=backoff_s)
                await self._stop.within(backoff_s)
                backoff_s = min(BACKOFF_S_MAX, backoff_s * 2)
            else:
                return True
        return False

    async def _check_topics(self, works: asyncio.Event) -> None:
        """Check or create the topics. Raises TopicsInvalid with all problems."""
        await self._stop.unless(self._require_topics())

    async def _require_topics(self) -> None:
        from mesh.adapters.clock import SystemClock
        from mesh.app.wiring import check_topics, topic_specs
        from mesh.operations.rollout import topology_changes

        async with self._session.log(create=True) as log:
            if self._create_topics:
                made = await log.create_topics(topic_specs(self._session.topology))
                if made and not self._embedded:
                    self._reporter.info(f"created {counted(len(made), 'topic')}", topics=list(made))
            await check_topics(log, self._session.topology)
            reports = self._plan.ready_file is None and "orchestrator" in self._services  # others may lack the right
            if reports and not self._changes_reported:
                for change in await topology_changes(log, self._session.topology, SystemClock()):
                    self._reporter.warning(change.text, change=change.kind, name=change.name, **change.facts)
                self._changes_reported = True

    async def _run_process(self, works: asyncio.Event) -> None:
        from mesh.app.process import Process

        async with AsyncExitStack() as exits:
            log = await self._stop.unless(exits.enter_async_context(self._session.log(create=True)))
            board: Board | None = None
            if "worker" in self._services:
                board = await self._stop.unless(self._board(log, exits))
                exits.enter_context(Watchdog(self._session.settings.blocked_ms_max))
            self._process = process = Process(
                log,
                self._session.topology,
                self._session.settings,
                services=self._services,
                agents=self._agents,
                board=board,
                name=self._name,
                after_outage=self._services_ready.is_set(),
            )
            if self._endpoints is not None:
                self._endpoints.process, self._endpoints.board = process, board
                process.watch_lag()
            async with asyncio.TaskGroup() as group:
                stopping = group.create_task(self._forward_stop(process))
                reporting = group.create_task(self._report_process_ready(process, works))
                await process.run()
                stopping.cancel()
                reporting.cancel()

    async def _board(self, log: "Log", exits: AsyncExitStack) -> "Board":
        """Open the board. An unreachable Redis is only reported: the worker runs, and its board calls fail."""
        from mesh.app.wiring import open_board

        board = open_board(self._session.settings, self._session.topology.prefix, beside=log)
        exits.push_async_callback(board.close)
        try:
            await board.start()
        except BoardUnavailable as error:
            if embedded_path(board.url) is not None:
                raise
            self._reporter.warning(f"{error}. Agents run without it; their board calls fail", board=board.url)
        return board

    async def _forward_stop(self, process: "Process") -> None:
        await self._stop.event.wait()
        process.stop()

    async def _report_process_ready(self, process: "Process", works: asyncio.Event) -> None:
        from mesh.app.process import tune_garbage_collector

        await process.wait_ready()
        tune_garbage_collector()
        works.set()
        self._services_ready.set()
        if not self._workers:
            self._ready([os.getpid()])

    async def _run_children(self) -> None:
        from mesh.cli.supervision.worker_processes import Children

        common, settings = self._session.options, self._session.settings
        arguments = [argument for name in self._agents for argument in ("--agent", name)]
        arguments += ["--verbose"] * common.verbose + ["--quiet"] * common.quiet + ["--no-color"] * common.no_color
        # In the environment, since other users can read command lines, and a board's address may hold a password.
        environ = {"MESH_LOG": settings.log, "MESH_BOARD": settings.board, "MESH_TOPOLOGY": settings.topology}
        self._children = children = Children(
            self._reporter,
            arguments,
            environ,
            number=self._workers,
            drain_timeout_ms=settings.drain_timeout_ms,
            folder=self._plan.folder,
            http=self._plan.http,
        )
        self._stop.last_acts.append(children.kill)
        async with asyncio.TaskGroup() as group:
            reporting = group.create_task(self._report_all_ready(children))
            if self._plan.rule is not None:
                from mesh.cli.supervision.autoscale import Autoscaling

                scaling = Autoscaling(self._session, self._reporter, self._plan.rule, self._agents, children)
                group.create_task(scaling.run(self._stop))
            await children.run(self._stop.event)
            reporting.cancel()

    async def _report_all_ready(self, children: "Children") -> None:
        if self._services:
            await self._services_ready.wait()
        await children.ready.wait()
        self._ready([os.getpid(), *children.pids])

    def _announce(self) -> None:
        settings, topology, output = self._session.settings, self._session.topology, self._session.output
        board = short(settings.board) if settings.board else "in the same file"
        if not output.err_is_terminal:
            facts = {"services": self._plan.services, "log": short(settings.log), "board": board}
            self._reporter.info(
                "starting", mesh=topology.name, **facts, **({"http": self._address} if self._address else {})
            )
            return
        output.note(("mesh ", "bold"), (topology.name, "bold"), f"  {', '.join(self._plan.services)}")
        output.note(("  log      ", "dim"), short(settings.log))
        if self._address:
            output.note(("  http     ", "dim"), f"{self._address}  /metrics /healthz /readyz")
        if "worker" in self._plan.services:
            output.note(("  board    ", "dim"), board)
            many = f" in {self._workers} processes" if self._workers else ""
            if self._plan.rule is not None:
                many = f" in {self._plan.rule.workers_min} to {self._plan.rule.workers_max} processes"
            output.note(("  agents   ", "dim"), f"{len(self._agents)}{many}: {' '.join(self._agents)}")

    def _ready(self, pids: list[int]) -> None:
        if self._plan.ready_file is not None:
            os.write(self._plan.ready_file, b"1")
            return
        output = self._session.output
        http = {"http": self._address} if self._address else {}
        output.emit({"event": "ready", "services": list(self._plan.services), "pids": pids, **http})
        spent = (time.monotonic() - self._began) * 1_000
        if output.err_is_terminal:
            output.note(("ready", "green"), f" in {took(spent)}", ("   Ctrl-C drains and stops", "dim"))
        else:
            self._reporter.info("ready", services=self._plan.services, pids=pids, took_ms=round(spent))

    def _stop_with_parent(self) -> None:
        if not os.read(sys.stdin.fileno(), 1_024):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop.event.set()

    def _spans(self) -> AbstractAsyncContextManager[None]:
        from mesh.adapters.tracing.kept_spans import KeptSpans
        from mesh.adapters.tracing.trace_export import exported

        settings = self._session.settings
        kept = KeptSpans(settings.trace_kept_max, settings.trace_slow_ms) if settings.trace_kept_max else None
        return exported("mesh" if len(self._services) > 1 else f"mesh-{self._services[0]}", kept)
