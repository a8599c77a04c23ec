"""All agents of one process, side by side."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from secrets import token_hex

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.log_time import ask_time
from mesh.adapters.ports import SESSION_TIMEOUT_MS, Board, Clock, Log
from mesh.core.errors import WorkerSpent
from mesh.core.protocol.record import Record
from mesh.core.run.control import Control
from mesh.core.task.abandoned_calls import tasks_in
from mesh.core.task.agent import Agent
from mesh.core.task.fault_injection import InjectedFault, active_fault, parse_fault
from mesh.core.topology.model import Topology
from mesh.runtime.control_follower import ControlFollower, TopicFollower
from mesh.runtime.execution.isolation import IsolatedProcesses
from mesh.services.worker.attempt import CANCEL_GRACE_MS
from mesh.services.worker.consumer import AgentConsumer
from mesh.services.worker.counts import Counts
from mesh.services.worker.lifespans import Lifespans
from mesh.services.worker.poison import MarkSlots

ENDED_MAX = 10_000
ABANDONED_MAX = 32
"""With more calls than this that were given up and go on all the same, a process ends and is started anew."""

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
        *,
        records_max: int = 500,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
        drain_timeout_ms: int = 10_000,
        grace_ms: int = CANCEL_GRACE_MS,
        abandoned_max: int = ABANDONED_MAX,
        holder: str = "",
        away: bool = False,
        cells: IsolatedProcesses | None = None,
    ) -> None:
        """`holder` names the process: work that was begun under the same name has not died with another one. `away`:
        this is a new beginning, since the log was away: whoever was at work has not died of a task. `cells`: where a
        task that may kill its process is called; None: here."""
        holder = holder or token_hex(8)
        places, self._cells = MarkSlots(), cells
        self._abandoned_max, self._agents, self._lifespans = abandoned_max, agents, Lifespans()
        self._spent = asyncio.Event()
        self.consumers: Mapping[str, AgentConsumer] = {
            name: AgentConsumer(
                *(log, board, topology, topology.agents[name], agent, clock, places, cells),
                records_max=records_max,
                session_timeout_ms=session_timeout_ms,
                drain_timeout_ms=drain_timeout_ms,
                grace_ms=grace_ms,
                holder=holder,
                away=away,
                call_abandoned=self._call_abandoned,
            )
            for name, agent in agents.items()
        }
        """Each agent at work here, by name."""
        self._control = ControlFollower(log, topology, self._told)
        self._endings = TopicFollower(log, topology.endings, self._ended, from_end=True)
        self._ended_ids: dict[str, None] = {}
        """Tasks whose runs have ended, the last ones that were heard of: none of them is begun."""
        for consumer in self.consumers.values():
            consumer.caller.ended = self._ended_ids
        self._log, self._topology = log, topology
        if topology.chaos:
            for name, consumer in self.consumers.items():
                consumer.caller.fault = partial(self._fault, name)

    async def run(self, stop: asyncio.Event) -> None:
        """Open the agents' resources, work until `stop` is set, let running tasks end within the drain timeout, close.

        Raises WorkerSpent, after the same end, when too many calls were given up and go on: the process should be
        started anew.
        """
        try:
            for name, agent in self._agents.items():
                self.consumers[name].caller.resources = await self._lifespans.enter(agent)
            await self._run(stop)
        finally:
            await self._lifespans.close()
            if self._cells is not None:
                await self._cells.close()
        if self._spent.is_set():
            raise WorkerSpent(
                f"{self.abandoned_calls} abandoned calls of agents still run; the limit is {self._abandoned_max}",
                remedy="Start this process again; let the agents end when they are cancelled",
            )

    async def _run(self, stop: asyncio.Event) -> None:
        ending = asyncio.Event()
        await ask_time(self._log, self._topology)
        async with asyncio.TaskGroup() as group:
            following = [
                group.create_task(self._control.run(), name="follow control"),
                group.create_task(self._endings.run(), name="follow endings"),
            ]
            await self._control.caught_up.wait()  # an agent that is stopped begins nothing, not even at first
            consumers = [group.create_task(s.run(ending), name=f"worker {s.name}") for s in self.consumers.values()]
            told = [group.create_task(event.wait()) for event in (stop, self._spent)]
            await asyncio.wait((*told, *consumers), return_when=asyncio.FIRST_COMPLETED)
            ending.set()
            for each in (*told, *following):
                each.cancel()

    async def wait_ready(self) -> None:
        """Returns when every agent here has joined its group and heard of its partitions."""
        for consumer in self.consumers.values():
            await consumer.ready.wait()

    @property
    def running(self) -> int:
        """Tasks in work right now."""
        return sum(consumer.lanes.running for consumer in self.consumers.values())

    @property
    def abandoned_calls(self) -> int:
        """Calls that were given up and have not ended; at the end of `run`, what will not let the loop be closed."""
        return sum(consumer.abandoned_calls for consumer in self.consumers.values())

    @property
    def counts(self) -> Mapping[str, Counts]:
        """What each agent's tasks came to here."""
        return {name: consumer.counts for name, consumer in self.consumers.items()}

    def _told(self, control: Control) -> None:
        """Agents were stopped or resumed, or their breakers opened or closed."""
        for name, consumer in self.consumers.items():
            consumer.gate.told(opened=control.breaker_of(name) is not None)
            stop = control.stop_of(name)
            if stop is not None and not consumer.held:
                _log.warning("an agent was stopped", agent=name, by=stop.by, why=stop.why)
                consumer.hold()
            elif stop is None and consumer.held:
                _log.warning("an agent was resumed", agent=name)
                consumer.release()

    def _ended(self, records: Sequence[Record]) -> None:
        """Runs have ended while tasks of theirs were in work."""
        ids = dict.fromkeys(id for record in records for id in tasks_in(record))
        self._ended_ids.update(ids)
        for id in list(islice(self._ended_ids, max(0, len(self._ended_ids) - ENDED_MAX))):
            del self._ended_ids[id]
        for consumer in self.consumers.values():
            consumer.caller.stop(ids)

    def _fault(self, name: str) -> InjectedFault | None:
        """What an agent was broken with, if it is broken now."""
        switch = active_fault(self._control.control, name, self._log.now_ms())
        return None if switch is None else parse_fault(switch.how)

    def _call_abandoned(self) -> None:
        if self.abandoned_calls > self._abandoned_max:
            self._spent.set()
