"""`mesh agents`: the types, limits, lag and stops of each agent."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mesh.adapters.ports import ReadLog
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session, embedded_path
from mesh.cli.framework.text import ago, span
from mesh.cli.views.switch_view import show_alerts
from mesh.core.errors import NotFound
from mesh.core.protocol.event import rfc3339
from mesh.core.run.control import NOTHING, Switch
from mesh.core.topology.model import AgentSpec, Topology

if TYPE_CHECKING:
    from mesh.core.metrics.alerts import AlertFact
    from mesh.operations.rollout import TopologyChange

app = verb()


@command(app, "agents", example="mesh agents --json | jq 'select(.lag > 0)'")
async def agents(session: Session) -> None:
    """List the agents: their types, limits, lag and stops.

    Lag is the number of records that the agent's group has not committed yet. Without a mesh it is left out.
    """
    topology = session.topology
    lags: dict[str, int | None] = dict.fromkeys(topology.agents)
    control = NOTHING
    removed: list[TopologyChange] = []
    alerts: Mapping[str, AlertFact] = {}
    path = embedded_path(session.settings.log)
    if path is None or path.is_file():
        from mesh.adapters.clock import SystemClock
        from mesh.operations.alert_reading import alerts_now
        from mesh.operations.rollout import AGENT, topology_changes
        from mesh.runtime.control_follower import control_now

        async with session.log() as log:
            control, alerts = await control_now(log, topology), await alerts_now(log, topology)
            for name in topology.agents:
                lags[name] = await _lag(log, topology, name)
            removed = [
                change for change in await topology_changes(log, topology, SystemClock()) if change.kind == AGENT
            ]
    else:
        session.output.note(("no mesh here yet, so no lag: `mesh up` starts one", "dim"))
    rows: list[list[Piece]] = []
    for name, spec in topology.agents.items():
        stop, breaker = control.stop_of(name), control.breaker_of(name)
        half_open = breaker is not None and _is_half_open(spec, breaker)
        session.output.emit(_json(spec, lags[name], stop, breaker, half_open=half_open))
        lag = lags[name]
        rows.append(
            [
                (name, "bold"),
                _state(stop, breaker, half_open=half_open),
                _subscription_text(spec),
                ", ".join(spec.emits) or ("–", "dim"),
                "–" if lag is None else (f"{lag:,}", "yellow" if lag else ""),
                span(spec.timeout_ms),
                f"{spec.retry.attempts_max}",
                f"{spec.lanes}",
                (spec.run, "dim"),
            ]
        )
    heads = ("AGENT", "STOPPED", "CONSUMES", "EMITS", ">LAG", ">TIMEOUT", ">TRIES", ">LANES", "RUN")
    session.output.table(heads, rows)
    show_alerts(session.output, alerts)
    for change in removed:
        session.output.emit({"agent": change.name, "removed": True, **change.facts})
        session.output.print(("removed ", "red"), change.text)


async def _lag(log: ReadLog, topology: Topology, name: str) -> int | None:
    from mesh.runtime.lag import places

    try:
        return sum(place.lag for place in (await places(log, topology, name)).values())
    except NotFound:
        return None


def _subscription_text(spec: AgentSpec) -> str:
    listed = " + ".join(spec.on) if spec.join else ", ".join(spec.on)
    return f"{listed} when …" if spec.when is not None else listed


def _is_half_open(spec: AgentSpec, breaker: Switch) -> bool:
    """Whether an open breaker lets a task through now and then. This follows from time; mesh.control does not say it.

    A failed try shuts the breaker for `open` once more; this function does not see that.
    """
    return spec.breaker is not None and time.time_ns() // 1_000_000 >= breaker.at_ms + spec.breaker.open_ms


def _state(stop: Switch | None, breaker: Switch | None, *, half_open: bool) -> Piece:
    if stop is not None:
        return (f"{ago(stop.at_ms)} by {stop.by}", "red")
    if breaker is None:
        return ""
    state = "half-open, opened" if half_open else "open"
    return (f"breaker {state} {ago(breaker.at_ms)}", "yellow")


def _json(
    spec: AgentSpec, lag: int | None, stop: Switch | None, breaker: Switch | None, *, half_open: bool
) -> dict[str, Any]:
    state = "half-open" if half_open else "open"
    return {
        "agent": spec.name,
        "hears": list(spec.on),
        "join": spec.join,
        "when": None if spec.when is None else str(spec.when),
        "emits": list(spec.emits),
        "fallback": list(spec.fallback),
        "run": spec.run,
        "timeout_ms": spec.timeout_ms,
        "attempts_max": spec.retry.attempts_max,
        "lanes": spec.lanes,
        "visits_max": spec.visits_max,
        "lag": lag,
        "stopped": None if stop is None else {"by": stop.by, "why": stop.why, "at": rfc3339(stop.at_ms)},
        "breaker": None if breaker is None else {"state": state, "why": breaker.why, "at": rfc3339(breaker.at_ms)},
    }
