"""Cells of a simulated worker: processes of their own, which die with their task or with their worker."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from mesh.core.board.changelog import BoardChange
from mesh.core.protocol.event import Event
from mesh.core.task.agent import Agent
from mesh.core.task.result import fault_of
from mesh.runtime.execution.isolation import CallRequest, IsolatedProcessDied
from mesh.services.worker.invocation import CRASHED, Function, context_of, failed
from tests.sim.board import SimBoard, Store
from tests.sim.clock import SimClock
from tests.sim.world import Host, World

CELLS_MAX = 2
BEGIN_MS = 30


class CellHost(Host):
    """One of them, with its task in it. `died` is done when the task has ended it."""

    def __init__(self, name: str, died: "asyncio.Future[None]", *, skew_ms: int) -> None:
        super().__init__(name, skew_ms=skew_ms)
        self.died = died

    def kill(self) -> None:
        """As `kill -9` does."""
        self.dead = True
        if not self.died.done():
            self.died.set_result(None)


class SimCells:
    """The isolated processes of one worker process. `hosts` collects them with all others."""

    def __init__(
        self, world: World, store: Store, worker: Host, agents: Mapping[str, Agent], hosts: list[Host]
    ) -> None:
        self._world, self._store, self._worker, self._agents = world, store, worker, agents
        self._places = asyncio.Semaphore(CELLS_MAX)
        self._hosts = hosts
        self._begun: list[CellHost] = []

    def can_run(self, agent: Agent) -> bool:
        return True

    @asynccontextmanager
    async def acquire(self, where: str) -> AsyncIterator["SimCells"]:
        async with self._places:
            await SimClock(self._world, self._worker).sleep_ms(BEGIN_MS)
            yield self

    async def close(self) -> None:
        """Each call has its own, which has ended."""

    def kill(self) -> None:
        """Their worker was killed."""
        for cell in self._begun:
            cell.dead = True

    async def answer(self, order: CallRequest, changed: Callable[[BoardChange], None] | None) -> Event:
        name = f"{self._worker.name}.cell{len(self._begun) + 1}"
        cell = CellHost(name, self._world.loop.create_future(), skew_ms=self._worker.skew_ms)
        self._begun.append(cell)
        self._hosts.append(cell)
        self._world.tell(name, "begins", order.task.id)
        calling = cell.context.run(self._begin, cell, order, changed)
        try:
            await asyncio.wait((calling, cell.died), return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise IsolatedProcessDied(CRASHED)
            return calling.result()
        finally:
            cell.dead = True

    def _begin(
        self, cell: CellHost, order: CallRequest, changed: Callable[[BoardChange], None] | None
    ) -> "asyncio.Task[Event]":
        return self._world.loop.create_task(self._call(cell, order, changed), name=cell.name)

    async def _call(self, cell: CellHost, order: CallRequest, changed: Callable[[BoardChange], None] | None) -> Event:
        task, clock = order.task, SimClock(self._world, cell)
        context = context_of(task, SimBoard(self._store, cell), changed)
        try:
            function = Function(order.spec, self._agents[order.spec.name], clock, None)
            return await function.answer(task, context, order.broken)
        except BaseException as error:  # noqa: BLE001  # whatever the agent raises, even SystemExit, is its answer
            return failed(task, context, fault_of(error))
