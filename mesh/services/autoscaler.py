"""Looks at what waits for the agents, and has as many workers as that wants. It owns no process: `Workers` does."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from mesh.adapters.ports import Clock, Log
from mesh.core.scaling.policy import Decision, Scaler, ScalingSample
from mesh.core.topology.model import Topology
from mesh.runtime.control_follower import ControlFollower
from mesh.runtime.lag import places


class Workers(Protocol):
    """Processes that can be made more and fewer."""

    @property
    def number(self) -> int:
        """So many there should be."""
        ...

    @property
    def settled(self) -> bool:
        """All of them are at work, and none is on its way out."""
        ...

    def scale(self, number: int) -> None:
        """Have so many from now on: start the missing ones, drain the others. Returns at once."""
        ...


class Autoscaler:
    """Run one with `await Autoscaler(...).run(stop)`, again and again with another log if that was gone: what `scaler`
    has learned stays."""

    def __init__(
        self,
        log: Log,
        topology: Topology,
        agents: Sequence[str],
        scaler: Scaler,
        clock: Clock,
        workers: Workers,
        told: Callable[[ScalingSample, Decision], None],
    ) -> None:
        """`told` hears of every decision after it was carried out; it must not raise."""
        self._log, self._topology, self._agents = log, topology, agents
        self._scaler, self._clock, self._workers, self._told = scaler, clock, workers, told
        self._control = ControlFollower(log, topology, lambda _: None)
        self.ready = asyncio.Event()
        """Set once it has looked."""

    async def run(self, stop: asyncio.Event) -> None:
        """Look, decide, scale, until `stop`. Raises LogUnavailable and NotFound, in a group."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._control.run(), name="follow control"),
                group.create_task(self._scale(), name="scale"),
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def _scale(self) -> None:
        await self._control.caught_up.wait()
        while True:
            sample = await self._sample()
            decision = self._scaler.decide(sample)
            if decision.workers != sample.workers:
                self._workers.scale(decision.workers)
            self._told(sample, decision)
            self.ready.set()
            await self._clock.sleep_ms(self._scaler.rule.polling_ms)

    async def _sample(self) -> ScalingSample:
        found = {name: await places(self._log, self._topology, name) for name in self._agents}
        control = self._control.control
        stopped = frozenset(name for name in self._agents if control.stop_of(name) is not None)
        return ScalingSample(self._clock.monotonic_ms(), self._workers.number, self._workers.settled, found, stopped)
