"""The lag of an agent's group on its tasks: what `mesh agents` shows and the autoscaler decides by."""

from collections.abc import Mapping

from mesh.adapters.ports import ReadLog
from mesh.core.scaling.lag import GroupOffsets
from mesh.core.topology.model import Topology


async def places(log: ReadLog, topology: Topology, agent: str) -> Mapping[int, GroupOffsets]:
    """Return the position of the group in each partition. A group that never committed is at the first record.

    Commits are read before ends, so that a commit meanwhile makes no negative lag. Raises NotFound without the topic,
    LogUnavailable.
    """
    topic = topology.tasks(agent)
    commits = await log.committed(topology.group(agent), topic)
    bounds = await log.bounds(topic)
    return {
        number: GroupOffsets(max(each.start, commits[number].offset if number in commits else each.start), each.end)
        for number, each in sorted(bounds.items())
    }
