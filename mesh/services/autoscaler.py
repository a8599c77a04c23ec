"""The autoscaler: measures the lag of agents and sets the number of workers. `Workers` owns the processes."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from mesh.adapters.ports import Clock, ReadLog
from mesh.core.scaling.policy import Decision, Scaler, ScalingSample
from mesh.core.topology.model import Topology
from mesh.runtime.control_follower import ControlFollower
from mesh.runtime.lag import places


class Workers(Protocol):
    """Worker processes whose number can be changed."""

    @property
    def number(self) -> int:
        """Return the wanted number of processes."""
        ...

    @property
    def settled(self) -> bool:
        """Return whether all of them work and none is ending."""
        ...

    def scale(self, number: int) -> None:
        """Change the wanted number: start missing processes, drain the others. Returns at once."""
        ...


class Autoscaler:
    """Run one with `await Autoscaler(...).run(stop)`, after an outage of the log with another one: `scaler` keeps its
    state."""

    def __init__(
        self,
        log: ReadLog,
        topology: Topology,
        agents: Sequence[str],
        scaler: Scaler,
        clock: Clock,
        workers: Workers,
        on_decision: Callable[[ScalingSample, Decision], None],
    ) -> None:
        """`on_decision` is called after each decision was carried out; it must not raise."""
        self._log, self._topology, self._agents = log, topology, agents
        self._scaler, self._clock, self._workers, self._on_decision = scaler, clock, workers, on_decision
        self._control = ControlFollower(log, topology, lambda _: None)
        self.ready = asyncio.Event()
        """Set after the first decision."""

    async def run(self, stop: asyncio.Event) -> None:
        """Measure, decide and scale until `stop`. Raises LogUnavailable and NotFound, in a group."""
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
            self._on_decision(sample, decision)
            self.ready.set()
            await self._clock.sleep_ms(self._scaler.rule.polling_ms)

    async def _sample(self) -> ScalingSample:
        found = {name: await places(self._log, self._topology, name) for name in self._agents}
        control = self._control.control
        stopped = frozenset(name for name in self._agents if control.stop_of(name) is not None)
        return ScalingSample(self._clock.monotonic_ms(), self._workers.number, self._workers.settled, found, stopped)
