"""A checkpoint folds on exactly as the partition it was made of; what is no checkpoint is named and refused."""

from dataclasses import replace

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core import checkpoint
from mesh.core.checkpoint import CheckpointNewer, CheckpointUnreadable, Loading, Note, Place, Snapshot, note_of
from mesh.core.event import Event
from mesh.core.fold import ENDED_OFFSETS_MAX, Partition
from mesh.core.partition import partition_of
from mesh.core.topology import Topology
from tests.builders import event, record, topology
from tests.core.world import World

ECHO = topology(echo="ask -> answer")
WORLDS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def loaded(chunks: list[bytes], mesh: Topology = ECHO) -> Partition:
    loading = Loading()
    for chunk in chunks:
        loading.feed(chunk)
    return loading.partition(mesh)


def content(state: Partition) -> dict[str, object]:
    """All that a fold knows; of the order in which runs ended, what still counts."""
    order = [(at, id) for at, id in state._ended_order if id in state.ended and state.ended[id].offset == at]
    left_out = ("topology", "topologies", "_ended_order")
    return {"order": order, **{name: value for name, value in vars(state).items() if name not in left_out}}


def partition_with(runs: int) -> Partition:
    state = Partition(ECHO, number=0, partitions=1)
    for n in range(runs):
        state.step(record(event(id=f"e{n}", run_id=f"run-{n}"), n))
    return state


# ------------------------------------------------------------------------------------------------------ there and back


@WORLDS
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.integers(1, 5))
def test_a_loaded_partition_folds_on_exactly_as_the_one_that_was_dumped(seed: int, part: float, rows: int) -> None:
    world = World(seed)
    world.live()
    cut = round(part * len(world.inbox))
    state = Partition(world.topology, number=0, partitions=1)
    for stored in world.inbox[:cut]:
        state.step(stored)
    again = loaded(list(Snapshot(state).chunks(rows)), world.topology)
    assert content(again) == content(state)
    for stored, effects in zip(world.inbox[cut:], world.effects[cut:], strict=True):
        assert again.step(stored) == effects
    assert content(again) == content(world.state)


def test_everything_that_a_partition_remembers_is_in_it() -> None:
    state = partition_with(1)
    configured = {"topology", "topologies", "number", "partitions", "_ended_order"}
    assert vars(state).keys() - configured == Partition.__annotations__.keys()


def test_a_partition_that_goes_on_does_not_change_the_snapshot_that_is_being_written() -> None:
    state = partition_with(3)
    chunks = Snapshot(state).chunks(1)
    first = next(chunks)
    cancelled = replace(event("cancelled", run_id="run-2"), id="c")
    state.step(record(cancelled, 3))
    state.step(record(event(id="e9", run_id="run-9"), 4))
    assert content(loaded([first, *chunks])) == content(partition_with(3))


def test_a_memory_that_was_loaded_forgets_as_it_would_have() -> None:
    state = partition_with(2)
    for n in (0, 1):
        state.step(record(event("cancelled", id=f"c{n}", run_id=f"run-{n}"), 10 + n))
    again = loaded(list(Snapshot(state).chunks()))
    late = Event("e7", "/t", "ask", "requested", "run-7", b"{}", 0)
    cancel = replace(late, id="c7", kind="cancelled")
    for n, one in enumerate((late, cancel)):
        again.step(record(one, ENDED_OFFSETS_MAX + 10 + n))
    assert list(again.ended) == ["run-1", "run-7"]


def test_a_simple_active_run_takes_less_than_a_kilobyte() -> None:
    size = sum(map(len, Snapshot(partition_with(1_000)).chunks()))
    assert size / 1_000 < 1_000


def test_chunks_are_small_however_many_runs_there_are() -> None:
    chunks = list(Snapshot(partition_with(1_000)).chunks())
    assert len(chunks) > 7
    assert max(map(len, chunks)) < 100_000


def test_runs_are_decided_under_the_topology_they_were_opened_under() -> None:
    old = replace(topology(echo="ask -> part", more="part -> answer"), digest="a" * 16)
    state = Partition(old, number=0, partitions=1)
    state.step(record(event(), 0))
    loading = Loading()
    for chunk in Snapshot(state).chunks():
        loading.feed(chunk)
    assert loading.digests == {old.digest}
    again = loading.partition(ECHO, {old.digest: old})
    (task,) = again.runs["run-1"].open.values()
    answer = event("succeeded", id="s", type="part", agent="echo", task_id=task.id, depth=1, path=("echo",), data=b"1")
    again.step(record(answer, 1))
    (task,) = again.runs["run-1"].open.values()
    assert task.agent == "more", "the new topology knows no such agent"
    again.step(record(event(id="e2", run_id="run-2"), 2))
    assert again.runs["run-2"].topology == ECHO.digest


# ----------------------------------------------------------------------------------------------- what is no checkpoint


def chunks_of(runs: int = 3) -> list[bytes]:
    return list(Snapshot(partition_with(runs)).chunks(1))


def test_a_checkpoint_with_a_chunk_missing_is_not_whole() -> None:
    for left_out in range(1, 4):
        chunks = chunks_of()
        del chunks[left_out]
        with pytest.raises(CheckpointUnreadable, match="3 runs and 0 ended ones expected, 2 and 0 found"):
            loaded(chunks)
    with pytest.raises(CheckpointUnreadable, match="a head expected"):
        loaded([])


@pytest.mark.parametrize(
    "chunk", [b"", b"{", b"[]", b'["runs"]', b'["runs",[[1]]]', b'["odd",[]]', b'["ended",[["x"]]]']
)
def test_bytes_that_are_no_chunk_are_refused(chunk: bytes) -> None:
    with pytest.raises(CheckpointUnreadable):
        loaded([chunks_of()[0], chunk])
    with pytest.raises(CheckpointUnreadable):
        loaded([chunk])


def test_a_later_schema_an_unknown_field_and_an_unknown_fact_are_refused_by_name() -> None:
    head = orjson.loads(chunks_of()[0])
    with pytest.raises(CheckpointNewer, match="schema 2, known is 1"):
        loaded([orjson.dumps({**head, "schema": 2})])
    fields = {**head["fields"], "Run": [*head["fields"]["Run"], "mood"]}
    with pytest.raises(CheckpointNewer, match="Run has no field mood"):
        loaded([orjson.dumps({**head, "fields": fields})])
    with pytest.raises(CheckpointNewer, match="says weather of the partition"):
        loaded([orjson.dumps({**head, "facts": {**head["facts"], "weather": 1}})])


def test_a_checkpoint_of_an_older_version_loads_with_the_defaults_of_what_was_added() -> None:
    head, *rest = chunks_of()
    told = orjson.loads(head)
    last = told["fields"]["Run"].pop()
    del told["facts"]["control"]
    rows = [orjson.loads(chunk) for chunk in rest]
    for _, runs in rows:
        for row in runs:
            row.pop()
    again = loaded([orjson.dumps(told), *map(orjson.dumps, rows)])
    assert content(again) == content(partition_with(3)), last


# ------------------------------------------------------------------------------------------------------------- the note


@pytest.mark.parametrize("note", [Note("d" * 16, 0), Note("d" * 16, 2**40, Place(2**40, 2**40, 10**6), 7)])
def test_a_note_is_read_as_it_was_written_and_fits_a_commit(note: Note) -> None:
    assert note_of(note.text()) == note
    assert len(note.text().encode()) < 300


@pytest.mark.parametrize("text", ["", "x", "[]", "null", "{}", '{"v":2}', '{"v":1}', '{"v":1,"checkpoint":[1]}'])
def test_a_text_that_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(CheckpointUnreadable):
        note_of(text)


def test_the_version_of_the_format_is_said() -> None:
    assert orjson.loads(Note("d", 1).text())["v"] == checkpoint.SCHEMA
    assert partition_of(b"run-1", 1) == 0
