"""Two states of a partition, told apart."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from mesh.core.run.control import Control
from mesh.core.state.checkpoint import CheckpointLoader, Snapshot
from mesh.core.state.partition_state import Partition
from mesh.core.verification.state_diff import state_difference
from tests.core.lived import INBOX, MESH, good, open_run


def state(*, records: int | None = None) -> Partition:
    """Three runs that ended and one that is open."""
    lived = good()
    open_run(lived)
    made = lived.fresh(INBOX.partition)
    for record in lived.records[INBOX.topic][:records]:
        made.step(record)
    return made


def loaded(given: Partition) -> Partition:
    loading = CheckpointLoader()
    for chunk in Snapshot(given).chunks():
        loading.feed(chunk)
    return loading.partition(MESH)


def test_a_state_and_what_was_loaded_of_it_are_alike_whatever_lies_still() -> None:
    assert state_difference(state(), loaded(state())) == ""
    thawed = loaded(state())
    assert [thawed.runs.get(id) for id in thawed.runs.rows()] != []
    assert state_difference(thawed, loaded(state())) == ""


def lose_open(other: Partition) -> None:
    other.runs.discard(next(iter(other.runs.rows())))


def lose_ended(other: Partition) -> None:
    other.ended.discard(next(iter(other.ended.rows())))


def change(other: Partition) -> None:
    (id,) = other.runs.rows()
    run = other.runs.get(id)
    assert run is not None
    other.runs.warm[id] = replace(run, deadline_ms=run.deadline_ms + 1)


def add(other: Partition) -> None:
    (id,) = other.runs.rows()
    run = other.runs.get(id)
    assert run is not None
    other.runs.warm["another"] = run


def turn(other: Partition) -> None:
    other.control = Control(offset=7)


def move(other: Partition) -> None:
    other.offset += 1


@pytest.mark.parametrize(
    ("spoil", "reported"),
    [
        (lose_open, "which is open, is not there"),
        (lose_ended, "which is ended, is not there"),
        (change, "is another one"),
        (add, "run another is open there"),
        (turn, "switches or breakers stand otherwise"),
        (move, "it stands at offset"),
    ],
)
def test_what_differs_is_named(spoil: Callable[[Partition], None], reported: str) -> None:
    other = loaded(state())
    spoil(other)
    assert reported in state_difference(state(), other)
