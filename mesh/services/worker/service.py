"""The worker service: the consumers of all agents of one process."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.log_time import ask_time
from mesh.adapters.ports import Board, Clock, Groups, Log
from mesh.core.errors import WorkerSpent
from mesh.core.protocol.record import Record
from mesh.core.run.control import Control
from mesh.core.task.abandoned_calls import tasks_in
from mesh.core.task.agent import Agent
from mesh.core.task.fault_injection import InjectedFault, active_fault, parse_fault
from mesh.core.topology.model import Topology
from mesh.runtime.control_follower import ControlFollower, TopicFollower
from mesh.runtime.execution.isolation import IsolatedProcesses
from mesh.services.worker.consumer import AgentConsumer
from mesh.services.worker.counts import Counts
from mesh.services.worker.environment import Environment, MarkSlots, Recorded, WorkerOptions
from mesh.services.worker.lifespans import Lifespans

ENDED_MAX = 10_000
_log = diagnostics("worker")


class Worker:
    """Run one with `await Worker(...).run(stop)`. `agents`: name → function, as topics.yaml's `run:` names them."""

    def __init__(
        self,
        log: Log,
        board: Board,
        topology: Topology,
        agents: Mapping[str, Agent],
        clock: Clock,
        options: WorkerOptions | None = None,
        *,
        isolated_processes: IsolatedProcesses | None = None,
        groups: Groups | None = None,
    ) -> None:
        """`isolated_processes`: where tasks run that may kill their process; None: they run in this process. `groups`:
        where the groups of the agents are joined, by default the log."""
        self._options, self._isolated_processes = options or WorkerOptions(), isolated_processes
        environment = Environment(
            log=log,
            groups=groups or log,
            board=board,
            topology=topology,
            clock=clock,
            options=self._options,
            slots=MarkSlots(),
            isolated_processes=isolated_processes,
            on_abandoned=self._check_abandoned,
        )
        self._log, self._topology = log, topology
        self._agents, self._lifespans, self._spent = agents, Lifespans(), asyncio.Event()
        self._control = ControlFollower(log, topology, self._follow)
        self._endings = TopicFollower(log, topology.endings, self._stop_ended, from_end=True)
        self._ended_ids: dict[str, None] = {}
        """The latest tasks whose runs have ended; none of them is begun."""
        self.consumers: Mapping[str, AgentConsumer] = {
            name: AgentConsumer(environment, topology.agents[name], agent) for name, agent in agents.items()
        }
        """The consumer of each agent, by name."""
        for name, consumer in self.consumers.items():
            consumer.caller.ended_tasks = self._ended_ids
            if topology.chaos:
                consumer.caller.injected_fault = partial(self._fault, name)

    def replay(self, recorded: Recorded, *, isolated: bool = False) -> None:
        """Take the tasks of all agents as a recording has them, each in an isolated process if `isolated`.

        Call it before `run`.
        """
        for consumer in self.consumers.values():
            consumer.replay(recorded, isolated=isolated)

    async def run(self, stop: asyncio.Event) -> None:
        """Open the agents' resources, work until `stop` is set, let running tasks end within the drain timeout, close.

        Raises WorkerSpent, after the same end, when too many abandoned calls still run: a restart is required.
        """
        try:
            for name, agent in self._agents.items():
                self.consumers[name].caller.resources = await self._lifespans.enter(agent)
            await self._run(stop)
        finally:
            await self._lifespans.close()
            if self._isolated_processes is not None:
                await self._isolated_processes.close()
        if self._spent.is_set():
            limit = self._options.abandoned_max
            raise WorkerSpent(
                f"{self.abandoned_calls} abandoned calls of agents still run; the limit is {limit}",
                remedy="Restart this process; let the agents end when they are cancelled",
            )

    async def _run(self, stop: asyncio.Event) -> None:
        ending = asyncio.Event()
        await ask_time(self._log, self._topology)
        async with asyncio.TaskGroup() as group:
            following = [
                group.create_task(self._control.run(), name="follow control"),
                group.create_task(self._endings.run(), name="follow endings"),
            ]
            await self._control.caught_up.wait()  # an agent that is stopped must not begin a task
            working = [group.create_task(c.run(ending), name=f"worker {c.name}") for c in self.consumers.values()]
            stopping = [group.create_task(event.wait()) for event in (stop, self._spent)]
            await asyncio.wait((*stopping, *working), return_when=asyncio.FIRST_COMPLETED)
            ending.set()
            for task in (*stopping, *following):
                task.cancel()

    async def wait_ready(self) -> None:
        """Return when every agent has joined its group and taken over its partitions."""
        for consumer in self.consumers.values():
            await consumer.partitions.ready.wait()

    @property
    def running(self) -> int:
        """Number of tasks in work."""
        return sum(consumer.lanes.running for consumer in self.consumers.values())

    @property
    def abandoned_calls(self) -> int:
        """Number of abandoned calls that still run; after `run` they keep the event loop from closing."""
        return sum(consumer.abandoned_calls for consumer in self.consumers.values())

    @property
    def counts(self) -> Mapping[str, Counts]:
        """The counts of each agent, by name."""
        return {name: consumer.counts for name, consumer in self.consumers.items()}

    def _follow(self, control: Control) -> None:
        """Apply mesh.control: agents were stopped or resumed, breakers opened or closed."""
        for name, consumer in self.consumers.items():
            consumer.gate.follow(opened=control.breaker_of(name) is not None)
            stop = control.stop_of(name)
            if stop is not None and not consumer.paused:
                _log.warning("an agent was stopped", agent=name, by=stop.by, why=stop.why)
                consumer.pause()
            elif stop is None and consumer.paused:
                _log.warning("an agent was resumed", agent=name)
                consumer.resume()

    def _stop_ended(self, records: Sequence[Record]) -> None:
        """Stop tasks whose runs have ended."""
        ids = dict.fromkeys(id for record in records for id in tasks_in(record))
        self._ended_ids.update(ids)
        for id in list(islice(self._ended_ids, max(0, len(self._ended_ids) - ENDED_MAX))):
            del self._ended_ids[id]
        for consumer in self.consumers.values():
            consumer.caller.stop(ids)

    def _fault(self, name: str) -> InjectedFault | None:
        """Return the fault that `mesh break` has set for an agent, while it lasts."""
        switch = active_fault(self._control.control, name, self._log.now_ms())
        return None if switch is None else parse_fault(switch.how)

    def _check_abandoned(self) -> None:
        if self.abandoned_calls > self._options.abandoned_max:
            self._spent.set()
