"""Read what a mesh has cost from its log."""

from collections.abc import Callable
from contextlib import aclosing
from typing import NamedTuple

from mesh.adapters.ports import ReadLog
from mesh.core.metrics.costs import Bill
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.publishing.effect_records import OUTCOME_TYPE
from mesh.core.run.state import COMPLETED
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import bounds_between, read_batches


class CostReading(NamedTuple):
    """A bill, and how many runs completed in its time."""

    bill: Bill
    completed: int


async def read_costs(
    log: ReadLog, topology: Topology, by: str, since_ms: int, day_of: Callable[[int], str]
) -> CostReading:
    """Sum what answers since a time used. Raises NotFound for a missing topic, LogUnavailable.

    Requests are read from one deadline earlier on, since answers may belong to them.
    """
    bill = Bill(by, since_ms, day_of)
    first_ms = since_ms - topology.limits.deadline_ms if by == "type" else since_ms
    bounds = await bounds_between(log, topology.inbox, max(1, first_ms))
    async with aclosing(read_batches(log, topology.inbox, bounds)) as batches:
        async for batch in batches:
            for record in batch:
                bill.take(record)
    return CostReading(bill, await _completed(log, topology, since_ms))


async def _completed(log: ReadLog, topology: Topology, since_ms: int) -> int:
    runs: set[str] = set()
    bounds = await bounds_between(log, topology.outcomes, max(1, since_ms))
    async with aclosing(read_batches(log, topology.outcomes, bounds)) as batches:
        async for batch in batches:
            for record in batch:
                event = read_event(record)
                if not isinstance(event, Unreadable) and event.type == OUTCOME_TYPE + COMPLETED:
                    runs.add(event.run_id)
    return len(runs)
