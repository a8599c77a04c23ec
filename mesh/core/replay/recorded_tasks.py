"""Match the tasks of a what-if with those that were recorded, so that a recorded answer goes to the task it answers.

Task ids derive from their causes, so most tasks have the same id in both. If routes differ, ids shift: then a task
matches one of the same agent with the same causing event and the same input. The event that completes a join depends on
the order of the answers, so joins match by agent and input.
"""

from typing import NamedTuple

from mesh.core.protocol.event import Event, fingerprint
from mesh.core.run.routing import JOIN_TYPE
from mesh.core.topology.model import Topology


class _Key(NamedTuple):
    agent: str
    cause: str
    type: str
    input: str


def _key(task: Event) -> _Key:
    cause = "" if task.type == JOIN_TYPE else task.cause_id
    return _Key(task.agent, cause, task.type, fingerprint(task.data))


class TaskMatches:
    """Tasks of one run, recorded and under the other topology. Each matches at most one."""

    def __init__(self) -> None:
        self.other_of: dict[str, str] = {}
        """Id of a recorded task → that of the task under the other topology."""
        self.recorded_of: dict[str, str] = {}
        """The same the other way round."""
        self.recorded: dict[str, _Key] = {}
        self.others: dict[str, _Key] = {}

    def add_recorded(self, task: Event) -> str | None:
        """Add the first attempt of a recorded task; return the id of the task that it matches, if there is one."""
        key = self.recorded.setdefault(task.task_id, _key(task))
        if task.task_id in self.other_of:
            return self.other_of[task.task_id]
        if self.others.get(task.task_id) == key and task.task_id not in self.recorded_of:
            return self._match(task.task_id, task.task_id)
        free = (id for id, other in self.others.items() if other == key and id not in self.recorded_of)
        return self._match(task.task_id, next(free, None))

    def add_other(self, task: Event) -> str | None:
        """Add the first attempt of a task under the other topology; return the id of the recorded one, if any."""
        key = self.others.setdefault(task.task_id, _key(task))
        if task.task_id in self.recorded_of:
            return self.recorded_of[task.task_id]
        if self.recorded.get(task.task_id) == key and task.task_id not in self.other_of:
            self._match(task.task_id, task.task_id)
            return task.task_id
        found = next((id for id, other in self.recorded.items() if other == key and id not in self.other_of), None)
        if found is not None:
            self._match(found, task.task_id)
        return found

    def _match(self, recorded: str, other: str | None) -> str | None:
        if other is not None:
            self.other_of[recorded], self.recorded_of[other] = other, recorded
        return other


def same_routes(one: Topology, other: Topology) -> bool:
    """Whether two topologies make the same tasks of the same events, as long as no limit refuses one.

    Then equal ids mean equal inputs, and no recorded task needs to be known to match it."""
    return _routes(one) == _routes(other)


def _routes(topology: Topology) -> object:
    rows = {
        type: [(row.agent.name, row.join, row.agent.when, row.agent.ignores) for row in rows]
        for type, rows in topology.rows.items()
    }
    chains = {name: (spec.fallback, spec.breaker) for name, spec in topology.agents.items()}
    return rows, chains
