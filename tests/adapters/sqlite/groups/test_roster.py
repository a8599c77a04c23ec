"""Groups in the file, step by step."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from mesh.adapters.ports import Commit, TopicSpec
from mesh.adapters.sqlite.groups import roster
from mesh.adapters.sqlite.partitions import catalog
from mesh.adapters.sqlite.partitions.catalog import Catalog
from mesh.core.errors import Fenced

KILLED: set[str] = set()


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in catalog.SCHEMA:
            connection.execute(statement)
        catalog.create(connection, [TopicSpec("t", 4), TopicSpec("u", 2)])
        yield connection
    KILLED.clear()


def join(db: sqlite3.Connection, member: str, now_ms: float = 0, topics: tuple[str, ...] = ("t",)) -> int:
    known = Catalog()
    return roster.join(
        db,
        "g",
        member,
        [known.topic(db, name) for name in topics],
        opener=f"process of {member}",
        is_dead=KILLED.__contains__,
        session_timeout_ms=1_000,
        now_ms=now_ms,
    )


def beat(
    db: sqlite3.Connection, members: list[str], now_ms: float, *, judge: bool = True
) -> tuple[list[str], list[int]]:
    return roster.beat(db, members, now_ms, is_dead=KILLED.__contains__, judge=judge)


def owned(db: sqlite3.Connection, group: int, member: str) -> tuple[set[int], set[int]]:
    view = roster.view(db, group, member)
    return set(view.owned), set(view.kept)


def test_the_first_member_owns_everything_at_once(db: sqlite3.Connection) -> None:
    group = join(db, "a")
    assert owned(db, group, "a") == ({1, 2, 3, 4}, {1, 2, 3, 4})


def test_a_partition_changes_hands_only_when_it_is_released(db: sqlite3.Connection) -> None:
    group = join(db, "a")
    assert join(db, "b") == group
    held, kept = owned(db, group, "a")
    assert (len(held), len(kept)) == (4, 2)
    assert owned(db, group, "b") == (set(), set())
    roster.release(db, group, "a", held - kept)
    assert owned(db, group, "b") == (held - kept, held - kept)
    assert owned(db, group, "a") == (kept, kept)


def test_what_a_member_releases_that_has_no_other_target_stays(db: sqlite3.Connection) -> None:
    group = join(db, "a")
    join(db, "b")
    roster.leave(db, group, "b")
    roster.release(db, group, "a", [1, 2])
    assert owned(db, group, "a") == ({1, 2, 3, 4}, {1, 2, 3, 4})


def test_a_member_that_leaves_hands_over_at_once(db: sqlite3.Connection) -> None:
    group = join(db, "a")
    join(db, "b")
    roster.leave(db, group, "a")
    assert owned(db, group, "b")[1] == {1, 2, 3, 4}
    assert not roster.view(db, group, "a").alive


def test_a_member_that_misses_the_session_timeout_is_expelled_and_notified(db: sqlite3.Connection) -> None:
    group = join(db, "a", now_ms=0)
    join(db, "b", now_ms=500)
    assert beat(db, ["b"], 1_000) == ([], [])
    assert beat(db, ["b"], 1_001) == ([], [group])
    assert owned(db, group, "b")[0] == {1, 2, 3, 4}
    assert beat(db, ["a", "b"], 1_002) == (["a"], [])


def test_a_killed_member_is_expelled_at_the_next_heartbeat(db: sqlite3.Connection) -> None:
    group = join(db, "a")
    join(db, "b")
    KILLED.add("process of a")
    assert beat(db, ["b"], 1) == ([], [group])
    assert owned(db, group, "b")[0] == {1, 2, 3, 4}
    KILLED.add("process of b")
    join(db, "c", now_ms=2)
    assert owned(db, group, "c")[0] == {1, 2, 3, 4}


def test_a_process_that_was_stopped_itself_expels_no_member(db: sqlite3.Connection) -> None:
    group = join(db, "a", now_ms=0)
    join(db, "b", now_ms=0)
    assert beat(db, ["b"], 5_000, judge=False) == ([], [])
    assert roster.view(db, group, "a").alive


def test_a_heartbeat_from_before_the_machine_was_started_is_none(db: sqlite3.Connection) -> None:
    group = join(db, "a", now_ms=1_000_000)
    assert join(db, "b", now_ms=50) == group
    assert owned(db, group, "b")[0] == {1, 2, 3, 4}


def test_only_the_owner_commits_all_or_nothing(db: sqlite3.Connection) -> None:
    group = join(db, "a")
    join(db, "b")
    held, kept = owned(db, group, "a")
    roster.commit(db, group, "a", {number: Commit(5, "m") for number in held})
    lost = held - kept
    roster.release(db, group, "a", lost)
    with pytest.raises(Fenced, match=r"4 partitions.*2 belong to another member"):
        roster.commit(db, group, "a", {number: Commit(6) for number in held})
    roster.commit(db, group, "b", {number: Commit(7) for number in lost})
    assert roster.committed(db, "g", 1, 4) == {n: Commit(7) if n in lost else Commit(5, "m") for n in range(1, 5)}
    assert roster.committed(db, "other", 1, 4) == {}


def test_members_may_listen_to_different_topics(db: sqlite3.Connection) -> None:
    group = join(db, "a", topics=("t",))
    join(db, "b", topics=("u",))
    assert owned(db, group, "a")[1] == {1, 2, 3, 4}
    assert owned(db, group, "b")[1] == {5, 6}
    roster.leave(db, group, "b")
    assert owned(db, group, "a")[1] == {1, 2, 3, 4}
