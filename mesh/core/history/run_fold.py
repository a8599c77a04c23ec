"""Fold the records of one run, each under the topology that the run was opened with.

    fold = RunFold(topology, run_id, partition=3)
    for record in records_of_the_run: decided = fold.take(record)

History, replay and what-if tell what this fold decided.
"""

from collections.abc import Sequence
from typing import NamedTuple

from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import REQUESTED, Event
from mesh.core.protocol.record import Record
from mesh.core.run.circuit_breaker import Breakers
from mesh.core.run.effects import Effect, Finish
from mesh.core.run.state import Run
from mesh.core.state.partition_state import Partition
from mesh.core.state.topology_registry import Registry, step
from mesh.core.topology.model import Topology


class Decided(NamedTuple):
    """The effect of one event on a run."""

    event: Event
    before: Run | None
    """State of the run before the event; the last one, if the run had ended. None: it was unknown."""
    after: Run | None
    """State after it, or at the end. None: the event concerns no run that is open."""
    effects: Sequence[Effect]


class RunFold:
    """The fold of one run. Takes the records of its partition in order."""

    def __init__(self, topology: Topology, run_id: str, *, partition: int, kept: Registry | None = None) -> None:
        """`topology`: that of the mesh now. `kept`: contents of mesh.topologies."""
        self.run_id = run_id
        self._kept = kept or Registry(topology.inbox)
        self.run: Run | None = None
        """State of the run; after its end the last one."""
        self._state = Partition(topology, number=partition, partitions=topology.inbox_partitions)

    @property
    def breakers(self) -> Breakers:
        """Breakers as far as the records taken show them."""
        return self._state.breakers

    def topology_of(self, run: Run) -> Topology:
        """Return the topology that decides a run of this fold."""
        return self._state.topologies[run.topology]

    def begin_with(self, state: Partition) -> Run | None:
        """Begin with a checkpoint of the partition; only later records may follow. Returns the run if it is open."""
        self._state.topologies.update(state.topologies)
        self._state.adopt(state.topology)
        run, ended = state.runs.get(self.run_id), state.ended.get(self.run_id)
        if ended is not None:
            self._state.ended[self.run_id] = ended
        if run is not None:
            self.run = self._state.runs[self.run_id] = run
        return run

    def take(self, record: Record) -> Decided | Unreadable | None:
        """Fold one record. Returns None for a record of another run or of all runs, whose effect on breakers counts."""
        event = read_event(record)
        own = record.key == self.run_id.encode()
        if isinstance(event, Unreadable):
            return event if own else None
        if own and self.run is None and event.kind == REQUESTED:
            self._kept.prepare(self._state, record.offset)
        effects = step(self._state, record, event)
        if not own:
            return None
        finish = next((effect for effect in effects if isinstance(effect, Finish)), None)
        before = self.run
        after = self._state.runs.get(self.run_id) if finish is None else finish.run
        self.run = after or self.run
        return Decided(event, before, after, effects)
