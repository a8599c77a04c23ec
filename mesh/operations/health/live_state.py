"""How a mesh stands now: its agents, what waits, what they did in the last minute, stops, faults and alerts.

`take` reads what came since the last time, so it may be called every second. Nothing is written.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import NamedTuple

from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.metrics.aggregate import Aggregate, merged
from mesh.core.metrics.alerts import AlertFact, fold_alerts
from mesh.core.metrics.definitions import Measured
from mesh.core.metrics.measurements import AGENT, MESH
from mesh.core.metrics.windows import BASE_MS, Scoped
from mesh.core.run.control import NOTHING, Control, Switch, fold_control
from mesh.core.scaling.lag import GroupLag
from mesh.core.task.fault_injection import active_fault
from mesh.core.topology.model import AgentSpec, Topology
from mesh.operations.window_reading import WindowReader
from mesh.runtime.lag import group_lags
from mesh.runtime.log_reader import read_records

MONITOR_SILENT_MS = 60_000
"""A monitor that has published nothing for so long is not said to be the source of numbers."""


class AgentState(NamedTuple):
    """One agent now, and what it did in the time that is measured."""

    spec: AgentSpec
    lag: GroupLag | None
    """None: its topic does not exist."""
    measured: Measured
    stop: Switch | None
    breaker: Switch | None
    half_open: bool
    """Whether the open breaker lets a task through now and then."""
    fault: Switch | None
    """A fault on purpose."""
    alerts: Sequence[AlertFact]


class MeshState(NamedTuple):
    """A mesh at one moment. Times are log time."""

    at_ms: int
    since_ms: int
    """Start of the time that is measured."""
    agents: Sequence[AgentState]
    services: Sequence[GroupLag]
    measured: Measured
    """Of the whole mesh."""
    control: Control
    alerts: Mapping[str, AlertFact]
    from_monitor: bool
    """Whether a monitor publishes windows. Those from before the first look are its; the rest is counted."""


class LiveState:
    """Reads a mesh again and again."""

    def __init__(self, log: ReadLog, topology: Topology, span_ms: int) -> None:
        """`span_ms`: time that is measured."""
        self._log, self._topology, self._span_ms = log, topology, span_ms
        self._windows: WindowReader | None = None
        self._control: Control = NOTHING
        self._alerts: Mapping[str, AlertFact] = {}
        self._control_next = 0

    async def take(self) -> MeshState:
        """Return the present state. Raises NotFound for a missing topic, LogUnavailable."""
        since_ms = self._log.now_ms() - self._span_ms
        if self._windows is None:
            windows = WindowReader(self._log, self._topology, since_ms, whole_runs=False)
            await windows.catch_up()
            self._windows = windows
        else:
            await self._windows.advance(since_ms)
        await self._follow_control()
        lags = {(lag.consumer, lag.topic): lag for lag in await group_lags(self._log, self._topology)}
        now_ms, base = self._log.now_ms(), self._windows.windows()
        length_ms = max(BASE_MS, now_ms - self._windows.since_ms)
        mesh = merged(_of(base, MESH))
        states = [
            self._agent(spec, lags.pop((name, self._topology.tasks(name)), None), base, mesh, length_ms, now_ms)
            for name, spec in self._topology.agents.items()
        ]
        recent = self._windows.published_ms > now_ms - MONITOR_SILENT_MS
        return MeshState(
            now_ms,
            self._windows.since_ms,
            states,
            list(lags.values()),
            Measured(mesh, mesh, length_ms),
            self._control,
            self._alerts,
            recent,
        )

    def _agent(
        self,
        spec: AgentSpec,
        lag: GroupLag | None,
        base: Mapping[int, Scoped],
        mesh: Aggregate,
        length_ms: int,
        now_ms: int,
    ) -> AgentState:
        breaker = self._control.breaker_of(spec.name)
        scope = AGENT + spec.name
        return AgentState(
            spec,
            lag,
            Measured(merged(_of(base, scope)), mesh, length_ms),
            self._control.stop_of(spec.name),
            breaker,
            breaker is not None and spec.breaker is not None and now_ms >= breaker.at_ms + spec.breaker.open_ms,
            active_fault(self._control, spec.name, now_ms),
            [fact for fact in self._alerts.values() if fact.scope == scope],
        )

    async def _follow_control(self) -> None:
        topic = self._topology.control
        if topic not in await self._log.topics():
            return
        bounds = (await self._log.bounds(topic))[0]
        if bounds.end <= self._control_next:
            return
        span = {0: Bounds(max(bounds.start, self._control_next), bounds.end)}
        async with aclosing(read_records(self._log, topic, span)) as stored:
            records = [record async for record in stored]
        self._control, _ = fold_control(self._control, records)
        self._alerts = fold_alerts(self._alerts, records)
        self._control_next = bounds.end


def _of(base: Mapping[int, Scoped], scope: str) -> Iterator[Aggregate]:
    return (scopes[scope] for scopes in base.values() if scope in scopes)
