"""Reports of tasks that were in work when their run ended."""

import pytest

from mesh.core.protocol.record import StoredRecord
from mesh.core.run.state import Held, Run, Task
from mesh.core.task.abandoned_calls import TASKS_A_RECORD, ending_records, tasks_in
from mesh.core.topology.loader import load

TOPOLOGY = load("""
mesh: {name: t, inbox: {partitions: 1}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")


def run_with(*tasks: Task) -> Run:
    run = Run("r-1", "ask", TOPOLOGY.digest, 0, 1_000)
    run.open = {task.id: task for task in tasks}
    return run


def task(id: str, held: Held | None = None) -> Task:
    made = Task(id, "echo", 1, ("echo",), (), "e-1")
    made.held = held
    return made


def stored(value: bytes | None) -> StoredRecord:
    return StoredRecord(TOPOLOGY.endings, 0, 0, 0, b"r-1", value, ())


def test_tasks_in_work_are_named_and_those_that_wait_are_not() -> None:
    (record,) = ending_records(run_with(task("t-1"), task("t-2", Held("ask", "", b"{}", 9)), task("t-3")), TOPOLOGY)
    assert (record.topic, record.key) == ("t.endings", b"r-1")
    assert list(tasks_in(stored(record.value))) == ["t-1", "t-3"]


@pytest.mark.parametrize("run", [run_with(), run_with(task("t-1", Held("ask", "", b"{}", 9)))])
def test_a_run_that_has_nothing_in_work_needs_no_record(run: Run) -> None:
    assert ending_records(run, TOPOLOGY) == []


def test_many_tasks_take_several_records_of_a_bounded_size() -> None:
    ids = [f"{n:032x}" for n in range(2 * TASKS_A_RECORD + 1)]
    records = ending_records(run_with(*map(task, ids)), TOPOLOGY)
    assert [id for record in records for id in tasks_in(stored(record.value))] == ids
    assert len(records) == 3
    assert max(len(record.value or b"") for record in records) < 50_000


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b"{}", b'{"tasks": "t-1"}', b'{"tasks": [1, null]}'])
def test_a_record_that_holds_something_else_names_none(value: bytes | None) -> None:
    assert list(tasks_in(stored(value))) == []
