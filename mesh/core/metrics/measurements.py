"""Records of mesh.inbox, mesh.outcomes and mesh.dead → numbers of scopes. Nothing else is written for them.

A *scope* is the whole mesh, an agent (`agent:pricing`) or a type of event (`type:order.placed`). Records of each source
topic are measured alone, so it does not matter in which order topics and partitions are read. All records of a run lie
in one partition of the inbox; the meter of that partition keeps a little of each run, for `kept_ms` after its request:
the words of the request, the critical path, and failures in a row. What is measured of a later record lacks these.

Times are log times. An answer bears the log time of the task that it answers (`ce_time`), so their difference is the
time of the attempt: waiting on the topic, then work.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import orjson

from mesh.core.metrics.aggregate import Aggregate
from mesh.core.metrics.context_drift import drift_of, vector_of
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import (
    BATCH,
    CANCELLED,
    FAILED,
    PAUSED,
    REDRIVEN,
    REQUESTED,
    RESUMED,
    SUCCEEDED,
    Event,
)
from mesh.core.protocol.record import Record
from mesh.core.protocol.timestamps import parse_time
from mesh.core.publishing.effect_records import OUTCOME_TYPE
from mesh.core.topology.model import Topology

MESH: Final = "mesh"
"""The scope of the whole mesh."""
AGENT: Final = "agent:"
TYPE: Final = "type:"
"""Prefixes of the other scopes."""
OTHER_TYPES: Final = "type:*"
KEPT_MS_MAX: Final = 300_000
"""Limit for the time that something of a run is kept."""
DRIFT_UNIT: Final = 1_000
"""Drift is stored in thousandths."""
UNTRIED: Final = frozenset({"later", "left_alone", "expired"})
"""Codes of failures in which the agent did not fail: it waits, was not called, or its run had ended."""
TIMED_OUT: Final = "timed_out"
"""Code of the failure of an attempt that took longer than its timeout."""
OVERRIDES: Final = frozenset({CANCELLED, PAUSED, RESUMED, REDRIVEN})
"""Kinds of events by which operators override what the mesh does."""
Scopes = Callable[[str], Aggregate]
"""Returns the aggregate of a scope in the window of the record at hand."""


class _OpenRun:
    """What is kept of a run."""

    __slots__ = ("critical_ms", "ends", "failed", "last_ms", "opened_ms", "request", "tried")

    def __init__(self, opened_ms: int, request: bytes) -> None:
        self.opened_ms = self.last_ms = opened_ms
        self.request = request
        self.critical_ms = 0
        self.ends: dict[tuple[str, ...], int] = {}
        """Path → the longest time in agents along it."""
        self.tried: dict[str, int] = {}
        """Task → time of its failed attempts."""
        self.failed: dict[tuple[str, ...], dict[str, int]] = {}
        """Path → agents that failed below it, each with how many had failed in a row."""

    def add_work(self, event: Event, work_ms: int, replaced: str) -> int:
        """Add an attempt, which began after that of the agent that it replaces. Returns how much longer the critical
        path got."""
        above = event.path[:-1]
        tried = self.tried.pop(event.task_id, 0) + work_ms
        if event.kind == FAILED:
            self.tried[event.task_id] = tried
        end = self.ends.get((*above, replaced) if replaced else above, 0) + tried
        self.ends[event.path] = max(end, self.ends.get(event.path, 0))
        longer = max(0, end - self.critical_ms)
        self.critical_ms += longer
        return longer


class InboxMeter:
    """Measures one partition of mesh.inbox; its records in order."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._kept_ms = kept_ms(topology)
        self._types = types_of(topology)
        self._runs: dict[str, _OpenRun] = {}

    def take(self, record: Record, at_ms: int, scopes: Scopes) -> None:
        """Measure a record of log time `at_ms`."""
        event = read_event(record)
        runs = self._runs
        while runs and at_ms - next(iter(runs.values())).opened_ms > self._kept_ms:
            del runs[next(iter(runs))]
        if isinstance(event, Unreadable):
            scopes(MESH).count("unreadable")
        elif event.kind == REQUESTED:
            scopes(MESH).count("requests")
            scopes(self._type(event.type)).count("events")
            if event.run_id not in runs:
                runs[event.run_id] = _OpenRun(at_ms, vector_of(event.data))
        elif event.kind in (SUCCEEDED, FAILED):
            self._take_answer(event, at_ms, scopes)
        elif event.kind in OVERRIDES:
            scopes(MESH).count("overrides")

    def _take_answer(self, event: Event, at_ms: int, scopes: Scopes) -> None:
        mesh, agent = scopes(MESH), scopes(AGENT + event.agent)
        run = self._runs.get(event.run_id)
        replaced, cascade = ("", 0) if run is None else self._failures_in_a_row(run, event)
        spent_ms = _time_spent(event, at_ms)
        work_ms = max(0, spent_ms - event.waited_ms)
        code = event.fault.code if event.fault is not None else "unknown"
        for scope in (mesh, agent):
            scope.observe("waiting_ms", min(event.waited_ms, spent_ms))
            scope.observe("work_ms", work_ms)
            scope.observe("depth", event.depth)
            scope.count("answers")
            scope.count("retries", int(event.attempt > 1))
            scope.count("fallbacks", int(bool(replaced)))
            if event.kind == SUCCEEDED:
                scope.count("succeeded")
            elif code in UNTRIED:
                scope.count("untried")
            else:
                scope.count("errors")
                scope.count("timeouts", int(code == TIMED_OUT))
                scope.count(f"error:{code}")
                scope.observe("cascade", cascade)
            if event.usage is not None:
                scope.count("tokens", event.usage.tokens)
                scope.count("usd_micros", event.usage.usd_micros)
        if event.kind == SUCCEEDED:
            for type in _types_of(event):
                mesh.count("emitted")
                agent.count("emitted")
                scopes(self._type(type)).count("events")
        elif code not in UNTRIED:
            scopes(self._type(event.type)).count("errors")
        if run is not None:
            mesh.count("elapsed_ms", max(0, at_ms - run.last_ms))
            mesh.count("critical_ms", run.add_work(event, work_ms, replaced))
            run.last_ms = max(run.last_ms, at_ms)
            drift = drift_of(run.request, vector_of(event.data)) if event.kind == SUCCEEDED else None
            for scope in (mesh, agent) if drift is not None else ():
                scope.observe("drift", round((drift or 0.0) * DRIFT_UNIT))

    def _type(self, type: str) -> str:
        """Return the scope of a type. Undeclared types share one, so that senders cannot make scopes without end."""
        return TYPE + type if type in self._types else OTHER_TYPES

    def _failures_in_a_row(self, run: _OpenRun, event: Event) -> tuple[str, int]:
        """Return the agent that this one replaces, "" if none, and how many have failed in a row, this one included."""
        agents, above = self._topology.agents, event.path[:-1]
        failed = run.failed.get(above, {})
        replaced, before = "", 0
        for name in failed:
            spec = agents.get(name)
            if spec is not None and name != event.agent and event.agent in spec.fallback:
                chain = {
                    other: n for other, n in failed.items() if other in (name, *spec.fallback) and other != event.agent
                }
                last = max(chain, key=lambda other: chain[other])
                if chain[last] > before:
                    replaced, before = last, chain[last]
        if event.kind == FAILED and (event.fault is None or event.fault.code not in UNTRIED):
            run.failed.setdefault(above, {})[event.agent] = before + 1
        elif event.kind == SUCCEEDED:
            failed.pop(event.agent, None)
        return replaced, before + 1


class OutcomeMeter:
    """Measures records of mesh.outcomes."""

    def take(self, record: Record, at_ms: int, scopes: Scopes) -> None:
        """Measure a record of log time `at_ms`. Answers to requests that opened no run count as rejected."""
        event = read_event(record)
        mesh = scopes(MESH)
        if isinstance(event, Unreadable):
            mesh.count("unreadable")
            return
        body = _document(event.data)
        if not event.type.startswith(OUTCOME_TYPE) or not isinstance(body.get("ending"), str):
            mesh.count("rejected")
            return
        ending = body["ending"]
        mesh.count("ended")
        mesh.count(f"ending:{ending}")
        took_ms, ended_ms = body.get("took_ms"), _time(body.get("ended"))
        if isinstance(took_ms, int):
            mesh.observe("run_ms", took_ms)
        if ended_ms is not None:
            mesh.observe("decision_ms", max(0, at_ms - ended_ms))
        if event.usage is not None and ending == "completed":
            mesh.count("completed_tokens", event.usage.tokens)
            mesh.count("completed_usd_micros", event.usage.usd_micros)
        refusals = [(str(one.get("code", "")), str(one.get("agent", ""))) for one in _objects(body.get("refusals"))]
        mesh.count("cyclic_runs", int(any(code in ("cycle", "visits") for code, _ in refusals)))
        for code, agent in refusals:
            for scope in (MESH, AGENT + agent) if agent else (MESH,):
                scopes(scope).count("refusals")
                scopes(scope).count(f"refusal:{code}")


class DeadMeter:
    """Measures records of mesh.dead."""

    def take(self, record: Record, at_ms: int, scopes: Scopes) -> None:
        """Measure a dead letter: its reason, and its agent if it has one. The last header of a name counts."""
        headers = dict(record.headers)
        code = (headers.get("mesh-dlq-reason") or b"unknown").decode("utf-8", "replace")
        agent = (headers.get("mesh-dlq-agent") or b"").decode("utf-8", "replace")
        for scope in (MESH, AGENT + agent) if agent else (MESH,):
            scopes(scope).count("dead")
            scopes(scope).count(f"dead:{code}")


Meter = InboxMeter | OutcomeMeter | DeadMeter


def meter_of(topic: str, topology: Topology) -> Meter:
    """Return a meter for one partition of a source topic."""
    if topic == topology.inbox:
        return InboxMeter(topology)
    return OutcomeMeter() if topic == topology.outcomes else DeadMeter()


def source_topics(topology: Topology) -> tuple[str, str, str]:
    """Return the topics that are measured."""
    return topology.inbox, topology.outcomes, topology.dead


def types_of(topology: Topology) -> frozenset[str]:
    """Return the types of events that a topology declares."""
    emitted = (type for spec in topology.agents.values() for type in spec.emits)
    return frozenset((*topology.rows, *topology.ingress, *topology.egress, *emitted))


def kept_ms(topology: Topology) -> int:
    """Return how long something of a run is kept after its request: until its deadline, at most `KEPT_MS_MAX`."""
    return min(topology.limits.deadline_ms, KEPT_MS_MAX)


def _time_spent(event: Event, at_ms: int) -> int:
    """Return the time from the task's record to the answer's; 0 where the answer does not say."""
    began_ms = _time(event.time)
    return max(0, at_ms - began_ms) if began_ms else 0


def _time(text: object) -> int | None:
    if not isinstance(text, str) or not text:
        return None
    try:
        return parse_time(text)
    except ValueError:
        return None


def _types_of(event: Event) -> Iterator[str]:
    """Yield the types of the events in an answer."""
    if event.content_type != BATCH:
        yield event.type
        return
    try:
        items = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return
    for item in _objects(items):
        yield str(item.get("type", ""))


def _document(data: bytes) -> Mapping[str, Any]:
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
