"""Find the effects of a changed topics.yaml on open runs, for `mesh check`, `mesh up` and `mesh agents`. Reads only.

The topology of topics.yaml is compared with those of open runs. Reported are removed agents with waiting tasks, removed
types, lowered limits, and changed keys from which run ids follow.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import fields
from typing import Any, NamedTuple

from mesh.adapters.ports import Bounds, Clock, ReadLog
from mesh.core.run.state import Run
from mesh.core.state.partition_state import Partition
from mesh.core.state.topology_registry import Registry, step
from mesh.core.topology.model import Limits, TopicRule, Topology
from mesh.runtime.checkpoint_store import read_checkpoints
from mesh.runtime.lag import places
from mesh.runtime.log_reader import read_records
from mesh.runtime.topology_store import read_kept

AGENT = "agent_removed"
TYPE = "type_removed"
LIMIT = "limit_lowered"
RUN_IDS = "run_ids_changed"


class TopologyChange(NamedTuple):
    """One difference. `kind` is one of the names above, `name` the agent, type, limit or topic."""

    kind: str
    name: str
    text: str
    facts: Mapping[str, Any]


class OpenWork(NamedTuple):
    """Open runs and tasks of the inbox."""

    runs: Counter[str]
    """Open runs by the digest of their topology."""
    tasks: Counter[str]
    """Their open tasks by agent."""


async def topology_changes(log: ReadLog, topology: Topology, clock: Clock) -> list[TopologyChange]:
    """Return the changes since the open runs were opened; empty if the log has no other topology.

    Raises LogUnavailable.
    """
    kept = await read_kept(log, topology, clock)
    others = [one for digest, one in kept.topologies.items() if digest != topology.digest]
    if not others:
        return []
    there = await log.topics()
    opened = await open_work(log, topology, clock, kept) if topology.inbox in there else OpenWork(Counter(), Counter())
    at = _current(kept, there.get(topology.inbox, 0))
    before = [one for one in others if opened.runs[one.digest] or one.digest in at]
    found = [change async for change in _agents(log, topology, others, opened, there)]
    return [
        *found,
        *_types(topology, before),
        *_run_ids(topology, before),
        *_limits(topology, before, opened),
    ]


async def adopted_topologies(log: ReadLog, topology: Topology, clock: Clock) -> list[Topology]:
    """Return the topologies under which orchestrators of this mesh ran last. Raises LogUnavailable."""
    there = await log.topics()
    if topology.topologies not in there:
        return []
    kept = await read_kept(log, topology, clock)
    current = _current(kept, there.get(topology.inbox, 0))
    return [one for digest, one in kept.topologies.items() if digest in current]


async def open_work(log: ReadLog, topology: Topology, clock: Clock, kept: Registry) -> OpenWork:
    """Count open runs and their tasks: fold the inbox after the latest checkpoints. Raises LogUnavailable."""
    known = list({topology.digest: topology, **kept.topologies}.values())
    standing = (await read_checkpoints(log, topology, clock, known)).states
    found = OpenWork(Counter(), Counter())
    for number, bounds in (await log.bounds(topology.inbox)).items():
        state = standing.get(number) or Partition(topology, number=number, partitions=topology.inbox_partitions)
        start = max(state.offset, bounds.start)
        kept.prepare(state, start)
        async with aclosing(read_records(log, topology.inbox, {number: Bounds(start, bounds.end)}, clock)) as stored:
            async for record in stored:
                step(state, record)
        for run in _runs(state):
            found.runs[run.topology] += 1
            found.tasks.update(task.agent for task in run.open.values())
    return found


def _runs(state: Partition) -> Iterator[Run]:
    for id in state.runs:
        yield state.runs[id]


def _current(kept: Registry, partitions: int) -> set[str]:
    """Return the digests of the topologies that inbox partitions adopted last."""
    under = (kept.topology_at(number, 2**63) for number in range(partitions))
    return {topology.digest for topology in under if topology is not None}


async def _agents(
    log: ReadLog, topology: Topology, others: Sequence[Topology], opened: OpenWork, there: Mapping[str, int]
) -> AsyncIterator[TopologyChange]:
    names = dict.fromkeys(name for one in others for name in one.agents if name not in topology.agents)
    for name in names:
        waiting = await places(log, topology, name) if topology.tasks(name) in there else {}
        unread = sum(place.lag for place in waiting.values())
        tasks = opened.tasks[name]
        if tasks:
            what = f"agent {name!r} is no longer declared, and its open tasks wait: {tasks}, of these {unread} unread"
            text = f"{what}. Keep workers of the old topics.yaml until they are done, or let their runs end"
            yield TopologyChange(AGENT, name, text, {"open_tasks": tasks, "unread_tasks": unread})


def _types(topology: Topology, before: Sequence[Topology]) -> Iterator[TopologyChange]:
    for type in dict.fromkeys(type for one in before for type in one.ingress if type not in topology.ingress):
        text = f"type {type!r} is no longer declared: its requests are refused as `unknown_type`"
        yield TopologyChange(TYPE, type, text, {})


def _run_ids(topology: Topology, before: Sequence[Topology]) -> Iterator[TopologyChange]:
    """Yield types whose events get other run ids than before."""
    reported: set[tuple[str, str]] = set()
    for one in before:
        for type, rule in one.ingress.items():
            now = topology.ingress.get(type, rule)
            was, sources = _run_id_sources(rule), _run_id_sources(now)
            what = ", ".join(
                f"{word} was {was[word]}, is {sources[word]}" for word in was if was[word] != sources[word]
            )
            if what and (type, what) not in reported:
                reported.add((type, what))
                text = f"run ids of type {type!r} follow from other keys: {what}. An earlier event that is "
                text += "sent again begins a new run"
                yield TopologyChange(RUN_IDS, type, text, {"before": was, "now": sources})


def _run_id_sources(rule: TopicRule) -> dict[str, str]:
    """Return the declarations from which the run id of an ingress record follows, besides its content."""
    key = (rule.key or "the key of the record") if rule.ordered else "none"
    return {"topic": rule.name, "`id`": rule.id or "none", "`order: key` by": key}


def _limits(topology: Topology, before: Sequence[Topology], opened: OpenWork) -> Iterator[TopologyChange]:
    for field in fields(Limits):
        now = getattr(topology.limits, field.name)
        was = {getattr(one.limits, field.name): one for one in before}
        for limit, one in was.items():
            if now is not None and (limit is None or now < limit):
                text = f"limit {field.name} is lowered from {limit} to {now}; open runs that keep the old one: "
                text += f"{opened.runs[one.digest]}"
                yield TopologyChange(LIMIT, field.name, text, {"before": limit, "now": now})
