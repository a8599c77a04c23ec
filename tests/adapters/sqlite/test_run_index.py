"""The file of the index of runs: joining, looking, and what is dropped."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.adapters.sqlite.run_index import MEMORY, ReadPlace, RunIndexFile, RunIndexUnusable, is_there
from mesh.core.history.run_entry import RunEntry
from mesh.core.history.run_query import RunQuery
from mesh.core.history.run_summary import Summary
from mesh.core.protocol.event import Usage
from mesh.core.protocol.record import TopicPartition

IDENTITY = {"mesh": "t", "rules": "1"}
PLACE = TopicPartition("t.inbox", 0)


def entry(n: int, **fields: object) -> RunEntry:
    """An open run, opened at second `n`."""
    given = {"home": 0, "inbox": [(n, n)], "type": "ask", "subject": f"s-{n}", "requests": (f"q-{n}",)}
    return RunEntry(f"run-{n}", **{**given, "opened_ms": n * 1_000, **fields})  # type: ignore[arg-type]


def ended(n: int, state: str = "completed", **fields: object) -> RunEntry:
    """A run that took `n` ms."""
    given = Summary(
        *(f"run-{n}", "ask", f"s-{n}", state, n * 1_000, n * 1_000 + n, n, ("visits",), ("b",)),
        codes=("visits", "timeout"),
        used=Usage(n, 2 * n),
        starved=("j",),
    )
    return entry(n, agents=("a", "b"), ended=given, generation=0, outcomes_home=0, outcomes=[(n, n)], **fields)


def by_id(*entries: RunEntry) -> dict[str, RunEntry]:
    return {one.run_id: one for one in entries}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "runs.db"


@pytest.fixture
def index(path: Path) -> Iterator[RunIndexFile]:
    file = RunIndexFile(path)
    file.open(IDENTITY)
    yield file
    file.close()


def test_entries_and_places_come_back(index: RunIndexFile) -> None:
    index.save(by_id(ended(3), entry(4)), (), {PLACE: ReadPlace(5, b"mark")})
    assert index.entry("run-4") == entry(4)
    assert index.entry("run-5") is None
    assert index.read_places() == {PLACE: ReadPlace(5, b"mark")}
    assert index.count() == 2


def test_parts_of_a_run_are_joined(index: RunIndexFile) -> None:
    index.save(by_id(entry(1)), (), {PLACE: ReadPlace(2, b"a")})
    more = RunEntry("run-1", home=0, inbox=[(5, 6)], agents=("z",), requests=("q-1", "q-x"))
    index.save(by_id(more), (), {PLACE: ReadPlace(7, b"b")})
    found = index.entry("run-1")
    assert found is not None
    assert (found.inbox, found.agents, found.requests, found.subject) == ([(1, 6)], ("z",), ("q-1", "q-x"), "s-1")
    assert index.named("q-x") == ["run-1"]


def test_a_run_goes_by_its_id_then_by_request_and_subject_then_by_prefix(index: RunIndexFile) -> None:
    index.save(by_id(entry(1), entry(2, subject="run-1"), entry(11, subject="q-2"), entry(12)), (), {})
    assert index.named("run-1") == ["run-1"]
    assert sorted(index.named("q-2")) == ["run-11", "run-2"]
    assert sorted(index.named("run-")) == ["run-1", "run-11", "run-12", "run-2"]
    assert index.named("none") == []


@pytest.mark.parametrize("tail", [False, True])
def test_ended_runs_are_chosen_in_each_order(index: RunIndexFile, *, tail: bool) -> None:
    runs = by_id(*(ended(n, "failed" if n % 2 else "completed") for n in range(1, 7)))
    if tail:
        index.save(by_id(runs["run-1"], entry(2)), (), {})
        index.add_tail({id: run for id, run in runs.items() if id != "run-1"}, ())
    else:
        index.save(runs, (), {})
    for sort in ("started", "ended", "took", "tasks", "spent"):
        assert [run.run_id for run in index.ended(RunQuery(state="failed", sort=sort))] == ["run-5", "run-3", "run-1"]
    for query, first in (
        (RunQuery(agent="a"), "run-6"),
        (RunQuery(agent="aa"), None),
        (RunQuery(code="timeout", until_ms=3_000), "run-2"),
        (RunQuery(subject="s-[12]"), None),
        (RunQuery(subject="s-?"), "run-6"),
        (RunQuery(tasks_min=6), "run-6"),
        (RunQuery(tasks_min=7), None),
        (RunQuery(slower_than_ms=5), "run-6"),
        (RunQuery(usd_micros_min=7), None),
        (RunQuery(type="other"), None),
    ):
        found = next(index.ended(query), None)
        assert (found and found.run_id) == first, query
    assert index.count() == 6


def test_open_runs_come_newest_first(index: RunIndexFile) -> None:
    index.save(by_id(entry(1), entry(3), ended(2), entry(4, late="completed")), (), {})
    assert [run.run_id for run in index.open_runs(RunQuery(agent="x", tasks_min=9))] == ["run-3", "run-1"]
    assert [run.run_id for run in index.open_runs(RunQuery(since_ms=2_000))] == ["run-3"]


def test_the_tail_is_for_this_process_alone(index: RunIndexFile, path: Path) -> None:
    index.save(by_id(entry(1)), (), {PLACE: ReadPlace(2, b"a")})
    index.add_tail(by_id(ended(1), entry(2)), ())
    assert index.named("s-2") == ["run-2"]
    assert index.named("q-2") == ["run-2"]
    found = index.entry("run-1")
    assert found is not None
    assert found.ended is not None
    other = RunIndexFile(path)
    other.open(IDENTITY)
    assert other.count() == 1
    assert other.read_places() == {PLACE: ReadPlace(2, b"a")}
    other.close()


def test_runs_without_records_are_removed(index: RunIndexFile) -> None:
    index.save(by_id(*(ended(n) for n in range(1, 9)), entry(9)), (), {})
    index.remove_gone({0: 5}, {0: 7})
    assert sorted(index.named("run-")) == ["run-5", "run-6", "run-7", "run-8", "run-9"]
    assert index.named("q-1") == []
    assert is_there(ended(6), {0: 7}, {0: 6})
    assert not is_there(ended(6), {0: 7}, {0: 7})


def test_one_process_builds_at_a_time(index: RunIndexFile, path: Path) -> None:
    other = RunIndexFile(path)
    other.open(IDENTITY)
    with index.building() as mine:
        assert mine
        with other.building() as theirs:
            assert not theirs
    with other.building() as theirs:
        assert theirs
    other.close()


def test_a_step_is_all_or_nothing(index: RunIndexFile) -> None:
    index.save(by_id(entry(1)), (), {PLACE: ReadPlace(2, b"a")})
    with pytest.raises(RunIndexUnusable):
        index.save(by_id(entry(2)), (), {PLACE: ReadPlace(3, None)})  # type: ignore[arg-type]
    assert index.count() == 1
    assert index.read_places()[PLACE].next == 2


def reopened(path: Path, identity: dict[str, str]) -> RunIndexFile:
    file = RunIndexFile(path)
    file.open(identity)
    return file


def test_a_file_for_another_log_is_dropped(index: RunIndexFile, path: Path) -> None:
    index.save(by_id(entry(1)), (), {})
    index.close()
    same = reopened(path, IDENTITY)
    assert (same.dropped, same.count()) == ("", 1)
    same.close()
    file = reopened(path, {**IDENTITY, "rules": "2"})
    assert file.dropped
    assert file.count() == 0
    file.close()


def test_what_is_no_database_is_dropped(index: RunIndexFile, path: Path) -> None:
    index.close()
    path.write_bytes(b"no database at all" * 100)
    file = reopened(path, IDENTITY)
    assert "damaged" in file.dropped
    assert file.count() == 0
    file.close()


def test_damaged_pages_are_told_when_they_are_read(index: RunIndexFile, path: Path) -> None:
    index.save(by_id(*(entry(n) for n in range(500))), (), {})
    index.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:16_384] + b"\xff" * (len(whole) - 16_384))
    file = reopened(path, IDENTITY)
    with pytest.raises(RunIndexUnusable) as refused:
        file.count()
    assert refused.value.damaged
    file.drop()
    file.open(IDENTITY)
    file.save(by_id(entry(1)), (), {})
    assert file.count() == 1
    file.close()


def test_a_database_of_another_kind_is_dropped(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE x (y)")
    other.close()
    file = reopened(path, IDENTITY)
    assert file.dropped
    assert file.count() == 0
    file.close()


def test_a_place_that_cannot_be_written_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunIndexUnusable) as refused:
        RunIndexFile(tmp_path / "file" / "runs.db").open(IDENTITY)
    assert not refused.value.damaged


def test_an_index_in_memory_leaves_nothing() -> None:
    file = RunIndexFile(MEMORY)
    file.open(IDENTITY)
    with file.building() as mine:
        assert mine
    file.save(by_id(entry(1)), (), {})
    assert file.count() == 1
    file.close()
    with pytest.raises(RunIndexUnusable):
        file.count()
