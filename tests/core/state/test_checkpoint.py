"""A checkpoint folds on exactly as the partition it was made of; what is no checkpoint is named and refused."""

import re
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.protocol.event import Event
from mesh.core.protocol.partitioner import partition_of
from mesh.core.state import checkpoint
from mesh.core.state.checkpoint import (
    CheckpointLoader,
    CheckpointNewer,
    CheckpointUnreadable,
    CommitNote,
    Extent,
    Snapshot,
    read_note,
)
from mesh.core.state.partition_state import ENDED_OFFSETS_MAX, FACTS, Partition
from mesh.core.state.row_codec import current_codec
from mesh.core.topology.model import Topology
from tests.builders import event, record, topology
from tests.core.world import World

ECHO = topology(echo="ask -> answer")
METADATA_BYTES_MAX = 4_096
WORLDS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def loaded(chunks: list[bytes], mesh: Topology = ECHO) -> Partition:
    loading = CheckpointLoader()
    for chunk in chunks:
        loading.feed(chunk)
    return loading.partition(mesh)


def attributes(state: Partition) -> dict[str, Any]:
    """All that it holds. A compiled object has no `__dict__`, but its class has a list of its attributes."""
    names = getattr(Partition, "__mypyc_attrs__", None) or vars(state)
    return {name: getattr(state, name) for name in names if not name.startswith("__")}


def content(state: Partition) -> dict[str, object]:
    """All that a fold knows; of the order in which runs ended, what still counts."""
    order = [(at, id) for at, id in state._ended_order if (one := state.ended.get(id)) and one.offset == at]
    left_out = ("topology", "topologies", "_ended_order", "touched")
    return {"order": order, **{name: value for name, value in attributes(state).items() if name not in left_out}}


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


def test_a_loaded_run_stays_its_row_until_it_is_read_and_is_written_again_unchanged() -> None:
    state = partition_with(5)
    state.step(record(event("cancelled", id="c", run_id="run-4"), 5))
    chunks = list(Snapshot(state).chunks())
    again = loaded(chunks)
    rows = dict(again.runs.cold)
    assert (len(again.runs), again.runs.warm, again.ended.warm) == (4, {}, {})
    again.step(record(event("cancelled", id="c", run_id="run-2"), 6))
    again.step(record(event(id="e3", run_id="run-4"), 7))  # comes late
    assert (list(again.runs.cold), again.runs.warm) == (["run-0", "run-1", "run-3"], {})
    written = Snapshot(again)
    assert all(written.runs[id] is rows[id] for id in ("run-0", "run-1", "run-3"))
    lines = [line for chunk in written.chunks() for line in chunk.split(b"\n")]
    assert lines.count(rows["run-0"]) == 1
    assert list(Snapshot(loaded(chunks)).chunks()) == chunks, "byte by byte"


def test_what_lies_still_for_longer_than_a_piece_is_kept_as_its_row_from_then_on() -> None:
    state = partition_with(4)
    state.touched = {f"run-{n}": n for n in range(4)}
    state.step(record(event("cancelled", id="c", run_id="run-0"), 4))
    before = content(loaded(list(Snapshot(state).chunks())))
    chunks = Snapshot(state, since=2).chunks(1)
    first = next(chunks)
    later = replace(event("cancelled", run_id="run-2"), id="c2")
    state.step(record(later, 5))
    rest = list(chunks)
    assert (list(state.runs.cold), list(state.runs.warm)) == (["run-1"], ["run-3"])
    assert (list(state.ended.cold), list(state.ended.warm)) == (["run-0"], ["run-2"])
    assert content(loaded([first, *rest])) == before
    state = partition_with(3)
    list(Snapshot(state, since=100).chunks())
    assert not state.runs.cold, "touched runs are not counted"


def test_a_piece_says_what_has_become_of_each_run() -> None:
    state = partition_with(3)
    first = list(Snapshot(state).chunks())
    for n, id in enumerate(("run-0", "run-1")):
        state.step(record(event("cancelled", id="c", run_id=id), 3 + n))
    state.ended.discard("run-1")
    piece = Snapshot(state, ["run-0", "run-1", "run-2"])
    assert (list(piece.ended), piece.gone, list(piece.runs), piece.rows) == (["run-0"], ["run-1"], ["run-2"], 3)
    again = loaded([*first, *piece.chunks(1)])
    assert (list(again.runs), list(again.ended)) == (["run-2"], ["run-0"])
    loading = CheckpointLoader()
    for chunk in (*first, *piece.chunks(1)):
        loading.feed(chunk)
    assert loading.pieces == [(3, []), (3, ["run-2", "run-0", "run-1"])]


def test_everything_that_a_partition_remembers_is_in_it() -> None:
    state = partition_with(1)
    configured = {"topology", "topologies", "number", "partitions", "_ended_order", "touched", "unknown", "kept_ms"}
    configured |= {"ended_offsets_max"}
    assert attributes(state).keys() - configured == {"runs", "ended", *FACTS}


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
    assert sorted(again.ended) == ["run-1", "run-7"]


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
    loading = CheckpointLoader()
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


def test_a_checkpoint_with_a_missing_chunk_is_incomplete() -> None:
    for left_out in range(1, 4):
        chunks = chunks_of()
        del chunks[left_out]
        with pytest.raises(CheckpointUnreadable, match=r"incomplete: {'runs': 3, .*} expected, {'runs': 2, .*} found"):
            loaded(chunks)
        with pytest.raises(CheckpointUnreadable, match="it is incomplete"):
            loaded([*chunks, *chunks_of()])
    with pytest.raises(CheckpointUnreadable, match="a head expected"):
        loaded([])


def test_a_chain_without_its_first_piece_is_no_state() -> None:
    with pytest.raises(CheckpointUnreadable, match="its first piece is missing"):
        loaded(list(Snapshot(partition_with(1), ["run-0"]).chunks()))


@pytest.mark.parametrize(
    "chunk",
    [b"", b"{", b"[]", b"state {", b"state []", b"runs", b"runs r1", b"runs r1 r2\n1 - []", b"odd x", b"ended x\n-"],
)
def test_bytes_that_are_no_chunk_are_refused(chunk: bytes) -> None:
    with pytest.raises(CheckpointUnreadable):
        loaded([chunks_of()[0], chunk])
    with pytest.raises(CheckpointUnreadable):
        loaded([chunk])


def test_a_later_schema_an_unknown_field_and_an_unknown_fact_are_refused_by_name() -> None:
    head = head_of(chunks_of()[0])
    with pytest.raises(CheckpointNewer, match="schema 3, known is 2"):
        loaded([as_head({**head, "schema": 3})])
    with pytest.raises(CheckpointUnreadable, match="schema 1, known is 2") as older:
        loaded([as_head({**head, "schema": 1})])
    assert not isinstance(older.value, CheckpointNewer)
    fields = {**head["fields"], "Run": [*head["fields"]["Run"], "mood"]}
    with pytest.raises(CheckpointNewer, match="Run has no field mood"):
        loaded([as_head({**head, "fields": fields})])
    with pytest.raises(CheckpointNewer, match="says weather of the partition"):
        loaded([as_head({**head, "facts": {**head["facts"], "weather": 1}})])


def head_of(chunk: bytes) -> dict[str, Any]:
    stored: dict[str, Any] = orjson.loads(chunk.removeprefix(b"state "))
    return stored


def as_head(head: dict[str, Any]) -> bytes:
    return b"state " + orjson.dumps(head)


def older(chunks: list[bytes]) -> list[bytes]:
    """As a version of the code wrote them whose runs lacked the last field."""
    head = head_of(chunks[0])
    head["fields"]["Run"].pop()
    del head["facts"]["control"]
    cut = [re.sub(rb",\[\]\]$", b"]", chunk) for chunk in chunks[1:]]
    assert cut != chunks[1:]
    return [as_head(head), *cut]


def test_a_checkpoint_of_an_older_version_loads_with_the_defaults_of_what_was_added() -> None:
    again = loaded(older(chunks_of()))
    assert not again.runs.cold, "its rows have another form: they are read at once"
    assert content(again) == content(partition_with(3))
    for chunk in older(chunks_of())[1:]:
        with pytest.raises(ValueError, match="damaged"):
            current_codec().read_run(chunk.partition(b"\n")[2])


def test_each_piece_is_read_as_the_version_wrote_it_that_wrote_it() -> None:
    state = partition_with(3)
    state.step(record(event(id="e9", run_id="run-9"), 3))
    again = loaded([*older(chunks_of()), *Snapshot(state, ["run-9"]).chunks()])
    assert (len(again.runs.warm), list(again.runs.cold)) == (3, ["run-9"])
    assert content(again) == content(state)


# ------------------------------------------------------------------------------------------------------------- the note


@pytest.mark.parametrize(
    "note", [CommitNote("d" * 16, 0), CommitNote("d" * 16, 2**40, (Extent(2**40, 2**40, 10**6),) * 40, 7)]
)
def test_a_note_is_read_as_it_was_written_and_fits_a_commit(note: CommitNote) -> None:
    assert read_note(note.text()) == note
    assert len(note.text().encode()) < METADATA_BYTES_MAX


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "null", "{}", '{"v":2}', '{"v":1}', '{"v":2,"checkpoint":[1]}', '{"v":2,"checkpoint":[[1,2]]}'],
)
def test_a_text_that_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(CheckpointUnreadable):
        read_note(text)


def test_the_version_of_the_format_is_said() -> None:
    assert orjson.loads(CommitNote("d", 1).text())["v"] == checkpoint.SCHEMA
    assert partition_of(b"run-1", 1) == 0
