"""`mesh up`: run services of the mesh, in this process or in several."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from secrets import token_hex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesh.adapters.machine_limits import environment_fault, raise_file_limit
from mesh.cli.framework.completion import agents as agent_names
from mesh.cli.framework.failure import report
from mesh.cli.framework.logs import Reporter, configure
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.session import Session, embedded_path, short
from mesh.cli.framework.signals import Stop, Stopped
from mesh.cli.framework.text import counted, took
from mesh.cli.supervision.watchdog import Watchdog
from mesh.core.errors import BoardUnavailable, InvalidInput, MeshError, NotFound, TopologyInvalid, leaf_errors
from mesh.core.suggest import nearest
from mesh.runtime.execution.loop_guard import GuardedLoop

if TYPE_CHECKING:
    from mesh.adapters.ports import Board, Log
    from mesh.app.process import Process
    from mesh.cli.supervision.worker_processes import Children
    from mesh.core.scaling.policy import ScalingRule
    from mesh.core.task.agent import Agent

BACKOFF_S_MAX = 5.0
"""Between two tries to reach what is gone: that is how much later than it the mesh may be back."""
ORDER = ("orchestrator", "intake", "worker")
app = verb()


@command(app, "up", example="mesh up --workers 3")
async def up(
    session: Session,
    services: Annotated[
        list[str] | None, typer.Argument(metavar="SERVICE", help="orchestrator, intake, worker; default: all")
    ] = None,
    *,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="worker processes; default: 1")
    ] = None,
    autoscale: Annotated[
        str | None, typer.Option(metavar="min=1,max=8", help="as many worker processes as the backlog wants")
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", autocompletion=agent_names, help="agents of the worker; default: all"),
    ] = None,
    create_topics: Annotated[bool, typer.Option("--create-topics", help="on Kafka: make missing topics")] = False,
    child: Annotated[int | None, typer.Option("--child", hidden=True, help="where to say that it is ready")] = None,
) -> int:
    """Run services of the mesh until Ctrl-C.

    The first Ctrl-C drains, the second stops at once. Without a SERVICE all of them run in this process, on the
    embedded file unless another log is set.

    On the embedded file topics are made when they are missing; on Kafka only with --create-topics. When the log is
    gone, the services wait for it and go on by themselves.

    --autoscale takes names of KEDA: min, max, lagThreshold (tasks of an agent that may wait for each worker; default:
    its lanes), ageThreshold (of its oldest task; default: its timeout), cooldownPeriod (30s), pollingInterval (1s).
    """
    from mesh.settings import working_folder

    configure(session.output, service=True)
    chosen, folder = _chosen(services or []), str(working_folder())
    agents = _agents(session, agent or [])
    rule = None if autoscale is None else _rule(session, autoscale, workers, chosen)
    reporter = Reporter(session.output)
    _expect_files(reporter, len(session.topology.agents))
    with Stop(reporter.info if child is None else _silent) as stop:
        options: dict[str, Any] = {"workers": workers or 1, "rule": rule, "create_topics": create_topics}
        host = Host(session, reporter, chosen, agents, stop, **options, child=child, folder=folder)
        try:
            await host.run()
            code = stop.code
        except (MeshError, BaseExceptionGroup) as error:
            first = leaf_errors(error)[0]
            if not host.abandoned_calls or not isinstance(first, MeshError):
                raise
            code = report(session.output, first)
        except asyncio.CancelledError as error:
            raise MeshError(
                "everything in this process was cancelled from within, which only an agent can do",
                remedy="Let agents cancel only what they began. Start it again: a task that does so is found out",
            ) from error
    if child is None:
        reporter.info("stopped")
    if host.abandoned_calls:  # they would keep the loop from closing, for ever
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _expect_files(reporter: Reporter, agents: int) -> None:
    limit = raise_file_limit(agents)
    if limit.files_max < limit.files_needed:
        reporter.warning(
            f"this process may open {limit.files_max:,} files, and {agents} agents may need {limit.files_needed:,}:"
            " raise the hard limit (`ulimit -Hn`; systemd: LimitNOFILE=)",
            files_max=limit.files_max,
            files_needed=limit.files_needed,
        )


class Host:
    """Runs the chosen services and their children until it is told to stop."""

    def __init__(
        self,
        session: Session,
        reporter: Reporter,
        services: tuple[str, ...],
        agents: "Mapping[str, Agent]",
        stop: Stop,
        *,
        workers: int,
        rule: "ScalingRule | None",
        create_topics: bool,
        child: int | None,
        folder: str,
    ) -> None:
        """`folder`: the working directory before any module of an agent was imported."""
        self._session, self._folder = session, folder
        self._reporter = reporter
        self._stop = stop
        self._rule = rule
        self._workers = workers if "worker" in services and workers > 1 else 0
        """Children to begin with; 0: the worker runs in this process."""
        if rule is not None:
            self._workers = rule.workers_min
        self._services = tuple(s for s in services if not (self._workers and s == "worker"))
        self._shown = services
        self._agents = agents
        self._embedded = embedded_path(session.settings.log) is not None
        self._create_topics = create_topics or self._embedded
        self._child = child
        self._name = token_hex(8)
        """The same after the log was away: who comes back to its own work has not died."""
        self._began = time.monotonic()
        self._process: Process | None = None
        self._told = False
        """What topics.yaml changes for open runs was told."""
        self._here = asyncio.Event()
        """Set once the services of this very process are ready."""

    @property
    def abandoned_calls(self) -> int:
        """Calls of agents that do not end."""
        return 0 if self._process is None else self._process.abandoned_calls

    async def run(self) -> None:
        """Until the signal; raises what no waiting can mend."""
        loop = asyncio.get_running_loop()
        if isinstance(loop, GuardedLoop):  # as every command is run in
            loop.report = self._reporter.warning
        if self._child is not None:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._parent_gone)
        else:
            self._announce()
        if await self._patiently(self._topics):
            async with _spans() if "worker" in self._services else nullcontext():
                await self._serve()

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            if self._services:
                group.create_task(self._patiently(self._once))
            if self._workers:
                group.create_task(self._children())

    async def _patiently(self, do: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> bool:
        """Do it again and again while an outside system is gone; False when we were told to stop before it was done.

        `do` sets its event once all is well: then the waits begin anew. Raises what no waiting can mend.
        """
        backoff_s = 1.0
        while not self._stop.event.is_set():
            well = asyncio.Event()
            try:
                await do(well)
            except Stopped:
                return False
            except (MeshError, OSError, MemoryError, BaseExceptionGroup) as error:
                found = [environment_fault(leaf) or leaf for leaf in leaf_errors(error)]
                if not all(isinstance(leaf, MeshError) and leaf.retriable for leaf in found):
                    raise
                if self._embedded and not self._here.is_set():
                    raise  # a file that cannot be opened will not come by waiting
                backoff_s = 1.0 if well.is_set() else backoff_s
                self._reporter.warning(f"{found[0]}; tried again in {backoff_s:g} s", again_in_s=backoff_s)
                await self._stop.within(backoff_s)
                backoff_s = min(BACKOFF_S_MAX, backoff_s * 2)
            else:
                return True
        return False

    async def _topics(self, well: asyncio.Event) -> None:
        """Every topic is there, or all that is wrong is said at once."""
        await self._stop.unless(self._expect_topics())

    async def _expect_topics(self) -> None:
        from mesh.adapters.clock import SystemClock
        from mesh.app.wiring import check_topics, topic_specs
        from mesh.operations.rollout import topology_changes

        async with self._session.log(create=True) as log:
            if self._create_topics:
                made = await log.create_topics(topic_specs(self._session.topology))
                if made and not self._embedded:
                    self._reporter.info(f"created {counted(len(made), 'topic')}", topics=list(made))
            await check_topics(log, self._session.topology)
            if self._child is None and not self._told and "orchestrator" in self._services:  # others may not read it
                for change in await topology_changes(log, self._session.topology, SystemClock()):
                    self._reporter.warning(change.text, change=change.kind, name=change.name, **change.facts)
                self._told = True

    async def _once(self, well: asyncio.Event) -> None:
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
                away=self._here.is_set(),
            )
            async with asyncio.TaskGroup() as group:
                stopping = group.create_task(self._pass_on(process))
                telling = group.create_task(self._tell_ready(process, well))
                await process.run()
                stopping.cancel()
                telling.cancel()

    async def _board(self, log: "Log", exits: AsyncExitStack) -> "Board":
        """The board; progress never depends on Redis, so the worker runs without it and its board calls fail."""
        from mesh.app.wiring import open_board

        board = open_board(self._session.settings, self._session.topology.prefix, beside=log)
        exits.push_async_callback(board.close)
        try:
            await board.start()
        except BoardUnavailable as error:
            if embedded_path(board.url) is not None:
                raise
            self._reporter.warning(f"{error}. Agents go on without it; their board calls fail", board=board.url)
        return board

    async def _pass_on(self, process: "Process") -> None:
        await self._stop.event.wait()
        process.stop()

    async def _tell_ready(self, process: "Process", well: asyncio.Event) -> None:
        from mesh.app.process import tune_garbage_collector

        await process.wait_ready()
        tune_garbage_collector()
        well.set()
        self._here.set()
        if not self._workers:
            self._ready([os.getpid()])

    async def _children(self) -> None:
        from mesh.cli.supervision.worker_processes import Children

        wanted, settings = self._session.wanted, self._session.settings
        arguments = [argument for name in self._agents for argument in ("--agent", name)]
        arguments += ["--verbose"] * wanted.verbose + ["--quiet"] * wanted.quiet + ["--no-color"] * wanted.no_color
        # By the environment, since everybody may read a command line and a board's address may hold a password.
        environ = {"MESH_LOG": settings.log, "MESH_BOARD": settings.board, "MESH_TOPOLOGY": settings.topology}
        drain_ms = settings.drain_timeout_ms
        options: dict[str, Any] = {"number": self._workers, "drain_timeout_ms": drain_ms, "folder": self._folder}
        children = Children(self._reporter, arguments, environ, **options)
        self._stop.last_acts.append(children.kill)
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell_all_ready(children))
            if self._rule is not None:
                from mesh.cli.supervision.autoscale import Autoscaling

                scaling = Autoscaling(self._session, self._reporter, self._rule, self._agents, children)
                group.create_task(scaling.run(self._stop))
            await children.run(self._stop.event)
            telling.cancel()

    async def _tell_all_ready(self, children: "Children") -> None:
        if self._services:
            await self._here.wait()
        await children.ready.wait()
        self._ready([os.getpid(), *children.pids])

    def _announce(self) -> None:
        settings, topology, output = self._session.settings, self._session.topology, self._session.output
        board = short(settings.board) if settings.board else "in the same file"
        if not output.err_is_terminal:
            self._reporter.info(
                "starting", mesh=topology.name, services=self._shown, log=short(settings.log), board=board
            )
            return
        output.note(("mesh ", "bold"), (topology.name, "bold"), f"  {', '.join(self._shown)}")
        output.note(("  log      ", "dim"), short(settings.log))
        if "worker" in self._shown:
            output.note(("  board    ", "dim"), board)
            many = f" in {self._workers} processes" if self._workers else ""
            if self._rule is not None:
                many = f" in {self._rule.workers_min} to {self._rule.workers_max} processes"
            output.note(("  agents   ", "dim"), f"{len(self._agents)}{many}: {' '.join(self._agents)}")

    def _ready(self, pids: list[int]) -> None:
        if self._child is not None:
            os.write(self._child, b"1")
            return
        output = self._session.output
        output.emit({"event": "ready", "services": list(self._shown), "pids": pids})
        spent = (time.monotonic() - self._began) * 1_000
        if output.err_is_terminal:
            output.note(("ready", "green"), f" in {took(spent)}", ("   Ctrl-C drains and stops", "dim"))
        else:
            self._reporter.info("ready", services=self._shown, pids=pids, took_ms=round(spent))

    def _parent_gone(self) -> None:
        if not os.read(sys.stdin.fileno(), 1_024):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stop.event.set()


def _spans() -> AbstractAsyncContextManager[None]:
    from mesh.adapters.telemetry import exported

    return exported("mesh-worker")


def _silent(sentence: str) -> None:
    """A child says nothing when it drains: its parent does."""


def _chosen(services: list[str]) -> tuple[str, ...]:
    unknown = next((name for name in services if name not in (*ORDER, "all")), None)
    if unknown is not None:
        near = nearest(unknown, ORDER)
        raise InvalidInput(
            f"no service is called {unknown!r}",
            code="usage",
            where="mesh up",
            expected=", ".join((*ORDER, "all")),
            remedy=f"Did you mean {near!r}?" if near else "",
        )
    return ORDER if not services or "all" in services else tuple(name for name in ORDER if name in services)


def _rule(session: Session, text: str, workers: int | None, services: tuple[str, ...]) -> "ScalingRule":
    from mesh.cli.supervision.autoscale import check_partitions, rule_of

    if workers is not None or "worker" not in services:
        both = "it cannot be given together with --workers"
        raise InvalidInput(
            both if workers is not None else "no worker is among the services",
            code="usage",
            where="--autoscale",
            remedy="Leave one of them out" if workers is not None else "Start it with `mesh up worker --autoscale …`",
        )
    rule = rule_of(text)
    check_partitions(rule, session.topology)
    return rule


def _agents(session: Session, names: list[str]) -> "Mapping[str, Agent]":
    from mesh.app.wiring import validate_agents

    known = session.topology.agents
    for name in names:
        if name not in known:
            near = nearest(name, known)
            remedy = f"Did you mean {near!r}?" if near else f"Known: {', '.join(known)}"
            raise NotFound(f"no agent is called {name!r}", where=session.topology.path, remedy=remedy)
    loaded, problems, _ = validate_agents(session.topology)
    if problems:
        raise TopologyInvalid(session.topology.path, problems)
    return {name: loaded[name] for name in known if not names or name in names}
