"""What lies on an agent's topic: its tasks, and whatever else somebody put there."""

from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import TASK, Event
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.publishing.effect_records import dead_letter
from mesh.core.state.partition_state import dead_record
from mesh.core.topology.model import Topology


def task_in(record: Record, agent: str, topology: Topology) -> Event | NewRecord:
    """The task in a record, or the dead letter that is sent instead of an answer when it holds none for this agent."""
    task = read_event(record)
    if isinstance(task, Unreadable):
        return dead_letter(dead_record(record, task.code, task.message), topology)
    if task.kind == TASK and task.agent == agent:
        return task
    text = f"{task.kind!r} for agent {task.agent!r} on the topic of {agent!r}"
    return dead_letter(
        dead_record(record, "wrong_agent" if task.kind == TASK else "unknown_kind", text, task), topology
    )
