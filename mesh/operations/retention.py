"""Records past their retention: find them on any log, and remove them.

Kafka and the embedded log also remove such records themselves, by the settings with which the topics were created. This
module uses the current topics.yaml. Records that a group has not read yet are kept at any age.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mesh.adapters.ports import Commit, Log, TopicSpec
from mesh.core.protocol.record import TopicPartition
from mesh.core.state.checkpoint import CheckpointUnreadable, read_note
from mesh.core.topology.model import Topology


class Expired(NamedTuple):
    """Removable records of one partition: from `start` up to `until`, exclusive."""

    partition: TopicPartition
    retention_ms: int
    start: int
    until: int


async def find_expired(log: Log, topology: Topology, specs: Sequence[TopicSpec], now_ms: int) -> list[Expired]:
    """Return the partitions of these topics with records past their `retention.ms`. Skips missing topics.

    Raises LogUnavailable.
    """
    existing, found = await log.topics(), []
    for spec in specs:
        retention_ms = int(spec.config.get("retention.ms", "-1"))
        if retention_ms < 0 or spec.name not in existing:
            continue
        bounds = await log.bounds(spec.name)
        young = await log.offsets_at(spec.name, now_ms - retention_ms)
        read = await _read_by_all(log, topology, spec.name)
        for number, bound in sorted(bounds.items()):
            until = min(young[number], bound.end if read is None else read.get(number, bound.start))
            if until > bound.start:
                found.append(Expired(TopicPartition(spec.name, number), retention_ms, bound.start, until))
    return found


async def remove(log: Log, expired: Expired) -> None:
    """Remove these records; the embedded log may keep a few that share a batch with later ones. Raises
    LogUnavailable, also when the removal is not allowed."""
    await log.trim(expired.partition, expired.until)


async def _read_by_all(log: Log, topology: Topology, topic: str) -> Mapping[int, int] | None:
    """Return by partition the offset below which the topic's group has read everything; None: no group reads it."""
    groups = {topology.inbox: "orchestrator", **{topology.tasks(name): name for name in topology.agents}}
    groups |= {rule.name: "intake" for rule in topology.topics.values() if rule.ingress}
    if topic not in groups:
        return None
    committed = await log.committed(topology.group(groups[topic]), topic)
    if topic != topology.inbox:
        return {number: commit.offset for number, commit in committed.items()}
    return {number: _checkpoint_offset(commit) for number, commit in committed.items()}


def _checkpoint_offset(commit: Commit) -> int:
    """Return the inbox offset from which a restore reads; 0 if the commit names no readable checkpoint."""
    try:
        return read_note(commit.metadata).offset if commit.metadata else 0
    except CheckpointUnreadable:
        return 0
