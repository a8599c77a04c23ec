"""The lag of consumer groups, for everything that shows it, and for autoscalers."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from mesh.adapters.ports import ReadLog
from mesh.core.metrics.measurements import source_topics
from mesh.core.protocol.record import TopicPartition
from mesh.core.scaling.lag import GroupLag, GroupOffsets, group_lag
from mesh.core.task import poison
from mesh.core.topology.model import FAUST_GROUP, Topology

AGE_POLL_MS: Final = 250
AGE_POLLS_MAX: Final = 6
"""Polls in a row without a record, after which an age stays unknown."""


class _Group(NamedTuple):
    """A group in one topic. `workers`: the process at work on each partition."""

    consumer: str
    topic: str
    places: Mapping[int, GroupOffsets]
    workers: Mapping[int, str]
    has_committed: bool


async def places(log: ReadLog, topology: Topology, agent: str) -> Mapping[int, GroupOffsets]:
    """Return the position of an agent's group in each partition. A group that never committed is at the first record.

    Raises NotFound without the topic, LogUnavailable.
    """
    return (await _group(log, topology, agent, topology.tasks(agent))).places


async def group_lags(log: ReadLog, topology: Topology) -> Sequence[GroupLag]:
    """Return the lag of each group in each of its topics: intake, orchestrator, agents, then a monitor if one has run.

    Topics that do not exist are left out. Raises LogUnavailable.
    """
    known = await log.topics()
    always = [("intake", rule.name) for rule in topology.topics.values() if rule.ingress]
    always += [("orchestrator", topology.inbox), *((name, topology.tasks(name)) for name in topology.agents)]
    found: list[GroupLag] = []
    # No two groups of a part read the same topic, so one reader has all their oldest records.
    for part in (always, *([(name, topic) for topic in source_topics(topology)] for name in ("monitor", FAUST_GROUP))):
        groups = await asyncio.gather(
            *(_group(log, topology, consumer, topic) for consumer, topic in part if topic in known)
        )
        shown = [group for group in groups if group.has_committed or part is always]
        stamps = await _oldest(log, shown)
        found += [_lag(topology, group, stamps.get(group.topic, {}), log.now_ms()) for group in shown]
    return found


def _lag(topology: Topology, group: _Group, oldest_ms: Mapping[int, int], now_ms: int) -> GroupLag:
    spec = topology.agents.get(group.consumer)
    return group_lag(
        group.consumer,
        group.topic,
        group.places,
        oldest_ms=oldest_ms,
        now_ms=now_ms,
        workers=None if spec is None else group.workers,
        lanes=0 if spec is None else spec.lanes,
    )


async def _group(log: ReadLog, topology: Topology, consumer: str, topic: str) -> _Group:
    """Read commits before ends, so that a commit meanwhile makes no negative lag."""
    commits = await log.committed(topology.group(consumer), topic)
    bounds = await log.bounds(topic)
    places = {
        number: GroupOffsets(max(each.start, commits[number].offset if number in commits else each.start), each.end)
        for number, each in sorted(bounds.items())
    }
    marks = {number: poison.decode(commit.metadata, commit.offset) for number, commit in commits.items()}
    workers = {number: each.by for number, each in marks.items() if each.working}
    return _Group(consumer, topic, places, workers, bool(commits))


async def _oldest(log: ReadLog, groups: Sequence[_Group]) -> Mapping[str, Mapping[int, int]]:
    """Return the log time of the first record that is not committed, by topic and partition.

    A partition that gives no record in time is left out.
    """
    ends = {
        TopicPartition(group.topic, number): place
        for group in groups
        for number, place in group.places.items()
        if place.lag
    }
    found: dict[str, dict[int, int]] = {}
    if not ends:
        return found
    reader = log.reader({partition: place.committed for partition, place in ends.items()})
    left, silent = set(ends), 0
    try:
        while left and silent < AGE_POLLS_MAX:
            records = await reader.poll(records_max=len(left), wait_ms=AGE_POLL_MS)
            silent = 0 if records else silent + 1
            for record in records:
                partition = TopicPartition(record.topic, record.partition)
                if partition in left:
                    found.setdefault(record.topic, {})[record.partition] = record.timestamp
                    left.remove(partition)
                    reader.seek(partition, ends[partition].end)
    finally:
        await reader.close()
    return found
