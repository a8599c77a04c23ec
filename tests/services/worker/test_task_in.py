"""A record of an agent's topic that is not a task of it becomes a dead letter with the reason."""

import pytest

from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import REQUESTED, TASK, Event
from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.services.worker.invocation import task_in
from tests.services.worker.counting_agents import TOPOLOGY, task

TOPIC = TOPOLOGY.tasks("echo")


def stored(record: NewRecord) -> StoredRecord:
    return StoredRecord(TOPIC, 1, 7, 0, record.key, record.value, record.headers)


def foreign(kind: str, agent: str) -> NewRecord:
    made = Event("t9:1", "/mesh/t", "ask", kind, "r9", b"{}", agent=agent, task_id="t9", depth=1, path=("other",))
    return NewRecord(TOPIC, b"r9", b"{}", event_headers(made))


def test_a_task_of_the_agent_is_read() -> None:
    found = task_in(stored(task(3)), "echo", TOPOLOGY)
    assert isinstance(found, Event)
    assert (found.kind, found.task_id, found.data) == (TASK, "t3", b'{"n":3}')


@pytest.mark.parametrize(
    ("record", "reason", "said"),
    [
        (NewRecord(TOPIC, b"k", b"junk"), b"not_cloudevents", b""),
        (foreign(TASK, "other"), b"wrong_agent", b"'task' for agent 'other' on the topic of 'echo'"),
        (foreign(REQUESTED, ""), b"unknown_kind", b"'requested' for agent '' on the topic of 'echo'"),
    ],
)
def test_an_invalid_record_is_reported_by_name_with_its_bytes(record: NewRecord, reason: bytes, said: bytes) -> None:
    dead = task_in(stored(record), "echo", TOPOLOGY)
    assert isinstance(dead, NewRecord)
    headers = dict(dead.headers)
    assert (dead.topic, dead.value, headers["mesh-dlq-reason"]) == (TOPOLOGY.dead, record.value, reason)
    assert said in headers["__dlq.errors.message"]
    assert (headers["__dlq.errors.partition"], headers["__dlq.errors.offset"]) == (b"1", b"7")
