"""Read runs whose first records retention removed: from checkpoints and the records after them.

A paused run, or one with a long deadline, may be older than the records of the inbox. Its history then begins with the
checkpoint of its partition. Checkpoints also hold runs that ended before the first record left, so a repeated request
of such a run is not taken for its first one.
"""

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.history.timeline import History
from mesh.core.protocol.record import Record
from mesh.core.publishing.request_rejection import DUPLICATE, LateRequest
from mesh.core.state.partition_state import Partition
from mesh.core.topology.model import Topology
from mesh.runtime.checkpoint_store import read_checkpoints
from mesh.runtime.topology_store import TopologyReader

Read = Callable[[str, Mapping[int, Bounds]], AsyncIterator[Record]]
"""Reader of the records between bounds of a topic, by partition."""


class RemovedRuns:
    """Histories that begin with a checkpoint."""

    def __init__(
        self, log: ReadLog, topology: Topology, known: TopologyReader, read: Read, *, payloads: bool = False
    ) -> None:
        self._log, self._topology, self._known = log, topology, known
        self._read = read
        self._payloads = payloads

    async def restore(self, histories: Iterable[History], bounds: Mapping[int, Bounds]) -> dict[str, History]:
        """Rebuild from checkpoints the histories without an ending that began before the first record left, by run id.

        `bounds`: of the inbox.
        """
        doubtful = [one for one in histories if not one.ending and bounds[one.partition].start > 0]
        states = await self._states({one.partition for one in doubtful})
        lost = [one for one in doubtful if _began_before(one, states, bounds)]
        return await self._from_checkpoints({one.run_id: one for one in lost}, states, bounds)

    async def open_runs(self, known: Collection[str], bounds: Mapping[int, Bounds]) -> dict[str, History]:
        """Return the histories of all runs that are open in checkpoints, except the known ones. Reads only partitions
        with removed records."""
        states = await self._states({number for number, bound in bounds.items() if bound.start > 0})
        found = {
            id: self._history(id, number) for number, state in states.items() for id in state.runs if id not in known
        }
        return await self._from_checkpoints(found, states, bounds)

    async def _states(self, numbers: Collection[int]) -> dict[int, Partition]:
        """Read the checkpoints of these partitions."""
        if not numbers:
            return {}
        await self._known.once()
        known = list({self._topology.digest: self._topology, **self._known.kept.topologies}.values())
        return (await read_checkpoints(self._log, self._topology, SystemClock(), known, only=numbers)).states

    async def _from_checkpoints(
        self, runs: Mapping[str, History], states: Mapping[int, Partition], bounds: Mapping[int, Bounds]
    ) -> dict[str, History]:
        """Fold the histories of these runs: the checkpoint first, then the records after it."""
        found: dict[str, History] = {}
        for id, before in runs.items():
            found[id] = history = self._history(id, before.partition)
            history.begin_with(states[before.partition], before.request)
        behind = {number: states[number].offset for number in {one.partition for one in found.values()}}
        places = {n: Bounds(max(offset, bounds[n].start), bounds[n].end) for n, offset in behind.items()}
        async for record in self._read(self._topology.inbox, places):
            history_of = found.get((record.key or b"").decode("utf-8", "replace"))
            if history_of is not None:
                history_of.take(record)
        for id, history in found.items():
            ended = states[history.partition].ended.get(id)
            if history.run is None and ended is not None:
                text = "the run had ended before the records that are left"
                history.take_late_answer(LateRequest(id, DUPLICATE, text, ended.ending))
        return found

    def _history(self, run_id: str, partition: int) -> History:
        kept = self._known.kept
        return History(self._topology, run_id, partition=partition, kept=kept, payloads=self._payloads)


def _began_before(history: History, states: Mapping[int, Partition], bounds: Mapping[int, Bounds]) -> bool:
    """Return whether the first records of a run were removed, although its history seems to begin there."""
    state = states.get(history.partition)
    if state is None:
        return False
    run = state.runs.get(history.run_id)
    if run is not None:
        return history.run is None or history.run.opened_ms > run.opened_ms
    ended = state.ended.get(history.run_id)
    return ended is not None and ended.offset < bounds[history.partition].start
