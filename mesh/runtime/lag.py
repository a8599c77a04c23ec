"""Where an agent's group stands in its tasks: what `mesh agents` shows and the autoscaler decides by."""

from collections.abc import Mapping

from mesh.adapters.ports import Log
from mesh.core.scaling.lag import Place
from mesh.core.topology.model import Topology


async def places(log: Log, topology: Topology, agent: str) -> Mapping[int, Place]:
    """Partition → place. A group that never committed stands at the first record.

    The places are read before the ends, so what is committed meanwhile is no negative lag. Raises NotFound without the
    topic, LogUnavailable.
    """
    topic = topology.tasks(agent)
    commits = await log.committed(topology.group(agent), topic)
    bounds = await log.bounds(topic)
    return {
        number: Place(max(each.start, commits[number].offset if number in commits else each.start), each.end)
        for number, each in sorted(bounds.items())
    }
