"""Index the runs of a recording in memory, to replay each of them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mesh.adapters.ports import ReadLog
from mesh.adapters.sqlite.run_index import MEMORY, RunIndexFile
from mesh.core.topology.model import Topology
from mesh.operations.run_index import RunIndex, identity_of
from mesh.operations.runs import Runs


@asynccontextmanager
async def indexed_runs(log: ReadLog, topology: Topology) -> AsyncIterator[Runs]:
    """Index all runs of a recording for a look at each of them. They keep payloads. Raises LogUnavailable, NotFound."""
    file = RunIndexFile(MEMORY)
    file.open(identity_of(topology, await log.topics()))
    try:
        index = RunIndex(log, topology, file)
        await index.catch_up()
        yield Runs(log, topology, finder=index, payloads=True)
    finally:
        file.close()
