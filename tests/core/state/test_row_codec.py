"""One line a run: what is asked of all stands in front, the rest comes back as it was."""

from dataclasses import replace

import orjson
import pytest

from mesh.core.run.effects import Schedule
from mesh.core.run.state import Ended, Held, Run, Task
from mesh.core.state.lazy_table import Table, number
from mesh.core.state.row_codec import NO_TOPOLOGY, current_codec, pending_timers, topology_of
from tests.builders import run

TASK = Task("t1", "echo", 1, ("echo",), (), "r1", attempt=2)
RUN = run(
    subject="a b\nc\td", open={"t1": TASK, "t2": replace(TASK, id="t2", held=Held("ask", "text/plain", b"\xff", 7))}
)


def test_a_run_comes_back_from_its_row() -> None:
    row = current_codec().write_run(RUN)
    assert current_codec().read_run(row) == RUN
    assert (number(row), topology_of(row)) == (RUN.deadline_ms, RUN.topology)
    assert b"\n" not in row


@pytest.mark.parametrize("kept", [None, RUN])
def test_the_memory_of_a_run_comes_back_from_its_row(kept: Run | None) -> None:
    ended = Ended("failed", ("r1", "f1"), 4_711, kept)
    row = current_codec().write_ended(ended)
    assert current_codec().read_ended(row) == ended
    assert (number(row), topology_of(row)) == (4_711, kept.topology if kept else NO_TOPOLOGY)


def test_the_tasks_of_waiting_runs_are_listed_without_reading_the_runs() -> None:
    paused = replace(RUN, id="run-2", open={"t3": replace(TASK, id="t3", held=Held("ask", "", b"", 0))})
    warm: Table[Run] = Table(current_codec().read_run)
    warm["run-1"], warm["run-2"] = RUN, paused
    cold: Table[Run] = Table(current_codec().read_run)
    cold.cold.update((id, current_codec().write_run(one)) for id, one in warm.items())
    stored = list(pending_timers(cold))
    assert stored == list(pending_timers(warm))
    assert not cold.warm
    assert stored == [
        Schedule("run-1", "run-1:deadline", RUN.deadline_ms),
        Schedule("run-1", "t2:2:due", 7, "t2", 2),
        Schedule("run-2", "run-2:deadline", RUN.deadline_ms),
    ], "a task of a paused run waits for no timer"


@pytest.mark.parametrize("row", [b"", b"1", b"1 x []", b"1 x [] {}", b"1 x [] [", b"1 x [] [1]"])
def test_an_invalid_row_is_distinguished_from_a_valid_one(row: bytes) -> None:
    with pytest.raises(ValueError, match="a row is damaged"):
        current_codec().read_run(row)


def test_the_fields_of_all_that_is_in_a_row_are_kept() -> None:
    assert {"Run", "Task", "Held", "Past", "Slot", "Arrival", "Trouble", "Ended"} <= current_codec().fields.keys()
    assert orjson.loads(current_codec().write_run(RUN).split(b" ", 3)[3])[0] == RUN.id
