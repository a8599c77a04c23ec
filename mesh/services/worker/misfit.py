"""What lies on an agent's topic: its tasks, and whatever else somebody put there."""

from mesh.core.codec import Unreadable, read
from mesh.core.event import TASK, Event
from mesh.core.fold import dead_record
from mesh.core.record import NewRecord, Record
from mesh.core.records import dead_letter
from mesh.core.topology import Topology


def task_in(record: Record, agent: str, topology: Topology) -> Event | NewRecord:
    """The task in a record, or the dead letter that is sent instead of an answer when it holds none for this agent."""
    task = read(record)
    if isinstance(task, Unreadable):
        return dead_letter(dead_record(record, task.code, task.message), topology)
    if task.kind == TASK and task.agent == agent:
        return task
    text = f"{task.kind!r} for agent {task.agent!r} on the topic of {agent!r}"
    return dead_letter(
        dead_record(record, "wrong_agent" if task.kind == TASK else "unknown_kind", text, task), topology
    )
