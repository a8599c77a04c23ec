"""Alerts: rules of topics.yaml over windows → facts on mesh.control, `alerted` and `cleared`. Pure.

A rule looks at the last whole windows. It alerts when its bound is exceeded by a number that rests on enough samples.
It clears when the bound is not exceeded any more, or when there is no value. It does not clear while the agents that it
stopped are stopped, since then nothing can be measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import orjson

from mesh.core.metrics.aggregate import Aggregate
from mesh.core.metrics.definitions import DEFINITIONS, MS, SHARE, Measured
from mesh.core.metrics.measurements import AGENT as AGENT_SCOPE
from mesh.core.metrics.measurements import MESH
from mesh.core.metrics.windows import Scoped, window_over
from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import MEASURED, Event, derive_id
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.run.control import AGENT, ALERT_TYPE, ALL, STOPPED, Control, Switch
from mesh.core.topology.model import AlertRule, Topology

ALERTED: Final = "alerted"
CLEARED: Final = "cleared"
BY: Final = "monitor"
"""Author of stops."""


class AlertFact(NamedTuple):
    """The state of one rule for one scope. `at_ms`: log time; `why`: the value beside its bound."""

    name: str
    scope: str
    state: str
    why: str
    at_ms: int = 0
    stops: bool = False

    @property
    def key(self) -> str:
        """Record key: the rule and its scope."""
        return f"alert:{self.name}/{self.scope}"

    @property
    def agent(self) -> str:
        """The agent concerned; `*` for all of them."""
        return self.scope.removeprefix(AGENT_SCOPE) if self.scope != MESH else ALL


def alert_record(fact: AlertFact, topology: Topology) -> NewRecord:
    """Return the record of mesh.control that says a fact."""
    body = {"name": fact.name, "scope": fact.scope, "state": fact.state, "why": fact.why, "stops": fact.stops}
    event = Event(
        derive_id("alert", fact.key, fact.state, fact.at_ms),
        f"/mesh/{topology.name}",
        ALERT_TYPE + fact.state,
        MEASURED,
        ALL,
        orjson.dumps(body),
        fact.at_ms,
        subject=fact.agent if fact.agent != ALL else "",
    )
    return NewRecord(topology.control, fact.key.encode(), event.data, event_headers(event))


def fold_alerts(alerts: Mapping[str, AlertFact], records: Iterable[Record]) -> dict[str, AlertFact]:
    """Fold records of mesh.control: the alerts that are not cleared, by key. Other records are left alone."""
    folded = dict(alerts)
    for record in records:
        event = read_event(record)
        if isinstance(event, Unreadable) or not event.type.startswith(ALERT_TYPE):
            continue
        try:
            body = orjson.loads(event.data)
            name, scope, state, why = (str(body[field]) for field in ("name", "scope", "state", "why"))
            fact = AlertFact(name, scope, state, why, record.timestamp, body.get("stops") is True)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            continue
        fold_fact(folded, fact)
    return folded


def fold_fact(alerts: dict[str, AlertFact], fact: AlertFact) -> None:
    """Fold a fact into the alerts that are not cleared."""
    alerts.pop(fact.key, None)
    if fact.state == ALERTED:
        alerts[fact.key] = fact


def changes(
    topology: Topology,
    base: Mapping[int, Scoped],
    end_ms: int,
    *,
    active: Mapping[str, AlertFact],
    control: Control,
    since_ms: int,
) -> Sequence[AlertFact]:
    """Return the facts that are new at the end of a window. `since_ms`: the time from which `base` is complete."""
    found: list[AlertFact] = []
    standing: set[str] = set()
    for rule in topology.alerts.values():
        start_ms = end_ms - rule.length_ms
        scopes = window_over(base, start_ms, rule.length_ms, lambda scope: not scope.startswith("type:"))
        for scope in _scopes(rule, topology):
            own, mesh = scopes.get(scope, Aggregate()), scopes.get(MESH, Aggregate())
            span = Measured(own, mesh, rule.length_ms)
            value, samples = DEFINITIONS[rule.number].compute(span), DEFINITIONS[rule.number].samples(span)
            fact = AlertFact(rule.name, scope, ALERTED, _why(rule, value), end_ms, rule.stops)
            standing.add(fact.key)
            exceeded = value is not None and (value > rule.bound if rule.above else value < rule.bound)
            if exceeded and fact.key not in active:
                found += [fact] if samples is None or samples >= rule.samples_min else []
            elif not exceeded and fact.key in active and start_ms >= since_ms and not _held(fact, value, control):
                found.append(fact._replace(state=CLEARED))
    gone = [fact._replace(state=CLEARED, why="the rule is gone", at_ms=end_ms) for fact in active.values()]
    return [*found, *(fact for fact in gone if fact.key not in standing)]


def stop_of(fact: AlertFact, control: Control) -> Switch | None:
    """Return the switch that a new alert sets; None: it sets none, or what it would stop is stopped."""
    if fact.state != ALERTED or not fact.stops or f"{AGENT}:{fact.agent}" in control.switches:
        return None
    return Switch(AGENT, fact.agent, STOPPED, BY, reason_of_stop(fact), fact.at_ms)


def reason_of_stop(fact: AlertFact) -> str:
    """Return the reason that the stop of an alert has."""
    return f"alert {fact.name}: {fact.why}"


def _held(fact: AlertFact, value: float | None, control: Control) -> bool:
    """Whether nothing can be measured because of the stop that this alert made."""
    return value is None and fact.stops and control.stop_of(fact.agent) is not None


def _scopes(rule: AlertRule, topology: Topology) -> Sequence[str]:
    if rule.of == MESH:
        return (MESH,)
    return [AGENT_SCOPE + name for name in ((rule.of,) if rule.of else topology.agents)]


def _why(rule: AlertRule, value: float | None) -> str:
    unit = DEFINITIONS[rule.number].unit
    if value is None:
        text = "no value"
    elif unit == SHARE:
        text = f"{value * 100:.1f} %"
    elif unit == MS:
        text = f"{value:.0f} ms"
    else:
        text = f"{value:.6g}"
    return f"{rule.number} is {text}, the rule is {rule.text}"
