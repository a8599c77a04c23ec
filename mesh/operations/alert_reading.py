"""Read the alerts that stand from mesh.control."""

from collections.abc import Mapping
from contextlib import aclosing

from mesh.adapters.ports import ReadLog
from mesh.core.metrics.alerts import AlertFact, fold_alerts
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_records


async def alerts_now(log: ReadLog, topology: Topology) -> Mapping[str, AlertFact]:
    """Return the alerts that are not cleared; none if the topic does not exist. Raises LogUnavailable."""
    if topology.control not in await log.topics():
        return {}
    async with aclosing(read_records(log, topology.control, await log.bounds(topology.control))) as stored:
        return fold_alerts({}, [record async for record in stored])
