"""Consumer groups in the file: members, owners of partitions, future owners (targets), and commits.

Every function is a job of the writer thread or a short read. A change of membership sets new *targets* at once. A
partition changes its *owner* only when the old one has released it, left, or missed its session timeout. So at most one
living member owns a partition, and only its owner can commit.

Heartbeats are compared in milliseconds of the machine's monotonic clock, which all its processes share. A killed member
is expelled at the next heartbeat of any other. The session timeout serves for processes that were stopped or lost the
disk.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from mesh.adapters.ports import Commit
from mesh.adapters.sqlite.groups.assignment import assign
from mesh.adapters.sqlite.partitions.catalog import Topic
from mesh.core.errors import Fenced

_REBOOTED_MS = 1_000
"""Lead of a heartbeat from which it dates from before the machine was started."""


IsDead = Callable[[str], bool]
"""Predicate: the opener of that name (`SqliteFile.opener`) was killed."""


class MemberView(NamedTuple):
    """A member as the file has it."""

    alive: bool
    owned: frozenset[int]
    """Numbers of its partitions, with those that it is to give up."""
    kept: frozenset[int]
    """Numbers of the partitions that it is to have."""


def channel(group: int) -> int:
    """Return the wake-up channel of a group (`SqliteFile.subscribe`)."""
    return -group


def join(
    connection: sqlite3.Connection,
    group: str,
    member: str,
    topics: Sequence[Topic],
    *,
    opener: str,
    is_dead: IsDead,
    session_timeout_ms: int,
    now_ms: float,
) -> int:
    """Add a member, assign the partitions again, and return the group's number."""
    connection.execute("INSERT OR IGNORE INTO groups (name) VALUES (?)", (group,))
    number = int(connection.execute("SELECT number FROM groups WHERE name = ?", (group,)).fetchone()[0])
    _expel(connection, is_dead, now_ms, number)
    seq = connection.execute("SELECT coalesce(max(seq), 0) + 1 FROM members WHERE grp = ?", (number,)).fetchone()[0]
    connection.execute(
        "INSERT INTO members (member, grp, seq, topics, opener, session_timeout_ms, beat_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (member, number, seq, json.dumps([t.name for t in topics]), opener, session_timeout_ms, int(now_ms)),
    )
    connection.executemany(
        "INSERT OR IGNORE INTO owners (grp, partition) VALUES (?, ?)",
        [(number, topic.first + partition) for topic in topics for partition in range(topic.partitions)],
    )
    rebalance(connection, number)
    return number


def leave(connection: sqlite3.Connection, group: int, member: str) -> None:
    """Remove a member; its partitions go to their new owners at once."""
    connection.execute("DELETE FROM members WHERE member = ?", (member,))
    rebalance(connection, group)


def release(connection: sqlite3.Connection, group: int, member: str, partitions: Iterable[int]) -> None:
    """Hand over partitions that the member has given up."""
    connection.execute(
        "UPDATE owners SET owner = target WHERE grp = ? AND owner = ?"
        " AND partition IN (SELECT value FROM json_each(?))",
        (group, member, json.dumps(list(partitions))),
    )


def beat(
    connection: sqlite3.Connection, members: Sequence[str], now_ms: float, *, is_dead: IsDead, judge: bool
) -> tuple[list[str], list[int]]:
    """Record heartbeats. Returns the members of these that were expelled before, and the groups that change now.

    `judge`: expel members that are dead or late, in any group. A process that was stopped itself must not judge: its
    peers may have been stopped with it, and their heartbeats may be about to come.
    """
    listed = json.dumps(list(members))
    connection.execute(
        "UPDATE members SET beat_ms = ? WHERE member IN (SELECT value FROM json_each(?))", (int(now_ms), listed)
    )
    known = {
        row[0]
        for row in connection.execute(
            "SELECT member FROM members WHERE member IN (SELECT value FROM json_each(?))", (listed,)
        ).fetchall()
    }
    changed = _expel(connection, is_dead, now_ms) if judge else []
    for group in changed:
        rebalance(connection, group)
    return [member for member in members if member not in known], changed


def rebalance(connection: sqlite3.Connection, group: int) -> None:
    """Set the targets. A partition without a present owner changes its owner at once."""
    topics = {
        name: range(first, first + partitions)
        for name, first, partitions in connection.execute("SELECT name, first, partitions FROM topics").fetchall()
    }
    eligible = {
        member: {number for name in json.loads(names) for number in topics[name]}
        for member, names in connection.execute(
            "SELECT member, topics FROM members WHERE grp = ? ORDER BY seq", (group,)
        ).fetchall()
    }
    rows = connection.execute("SELECT partition, owner, target FROM owners WHERE grp = ?", (group,)).fetchall()
    targets = assign(
        eligible, {partition: target if target in eligible else owner for partition, owner, target in rows}
    )
    changes = []
    for partition, owner, target in rows:
        new_target = targets.get(partition)
        new_owner = owner if owner in eligible else new_target
        if (new_owner, new_target) != (owner, target):
            changes.append((new_owner, new_target, group, partition))
    connection.executemany("UPDATE owners SET owner = ?, target = ? WHERE grp = ? AND partition = ?", changes)
    connection.execute("UPDATE groups SET generation = generation + 1 WHERE number = ?", (group,))


def view(connection: sqlite3.Connection, group: int, member: str) -> MemberView:
    """Return the partitions that a member owns and those that it is to have."""
    alive = connection.execute("SELECT 1 FROM members WHERE member = ?", (member,)).fetchone() is not None
    rows = connection.execute(
        "SELECT partition, target FROM owners WHERE grp = ? AND owner = ?", (group, member)
    ).fetchall()
    return MemberView(alive, frozenset(p for p, _ in rows), frozenset(p for p, target in rows if target == member))


def commit(connection: sqlite3.Connection, group: int, member: str, commits: Mapping[int, Commit]) -> None:
    """Store commits by partition number. Raises Fenced, and stores nothing, unless the member owns them all."""
    owned = {
        row[0]
        for row in connection.execute(
            "SELECT partition FROM owners WHERE grp = ? AND owner = ?"
            " AND partition IN (SELECT value FROM json_each(?))",
            (group, member, json.dumps(list(commits))),
        ).fetchall()
    }
    if len(owned) < len(commits):
        generation = connection.execute("SELECT generation FROM groups WHERE number = ?", (group,)).fetchone()[0]
        raise Fenced(
            f"commit of {len(commits)} partitions by member {member}, of which {len(commits) - len(owned)} belong to "
            f"another member since generation {generation} or before",
            remedy="Drop what was read; `poll` delivers it again to the new owner",
        )
    _store(connection, group, commits)


def _store(connection: sqlite3.Connection, group: int, commits: Mapping[int, Commit]) -> None:
    connection.executemany(
        "INSERT INTO commits (grp, partition, offset, metadata) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (grp, partition) DO UPDATE SET offset = excluded.offset, metadata = excluded.metadata",
        [(group, number, place.offset, place.metadata) for number, place in commits.items()],
    )


def committed(connection: sqlite3.Connection, group: str, first: int, partitions: int) -> dict[int, Commit]:
    """Return the commits of a group by partition number, for `partitions` numbers from `first` on."""
    rows = connection.execute(
        "SELECT partition, offset, metadata FROM commits WHERE grp = (SELECT number FROM groups WHERE name = ?)"
        " AND partition >= ? AND partition < ? ORDER BY partition",
        (group, first, first + partitions),
    ).fetchall()
    return {number: Commit(offset, metadata) for number, offset, metadata in rows}


def idle(connection: sqlite3.Connection, names: Sequence[str], is_dead: IsDead) -> list[str]:
    """Return the groups of these without a member, or only with members whose process was killed."""
    rows = connection.execute(
        "SELECT g.name, m.opener FROM members AS m JOIN groups AS g ON g.number = m.grp"
        " WHERE g.name IN (SELECT value FROM json_each(?))",
        (json.dumps(list(names)),),
    ).fetchall()
    busy = {name for name, opener in rows if not is_dead(opener)}
    return [name for name in names if name not in busy]


def commit_idle(connection: sqlite3.Connection, name: str, commits: Mapping[int, Commit], is_dead: IsDead) -> None:
    """Store commits of a group that has no member. Raises Fenced."""
    if not idle(connection, [name], is_dead):
        raise Fenced(f"group {name} has members, which commit for themselves")
    connection.execute("INSERT OR IGNORE INTO groups (name) VALUES (?)", (name,))
    (number,) = connection.execute("SELECT number FROM groups WHERE name = ?", (name,)).fetchone()
    _store(connection, number, commits)


def _expel(connection: sqlite3.Connection, is_dead: IsDead, now_ms: float, group: int | None = None) -> list[int]:
    """Remove members that were killed or missed their session timeout; return their groups."""
    rows = connection.execute(
        "SELECT member, grp, opener, beat_ms, session_timeout_ms FROM members WHERE ?1 IS NULL OR grp = ?1", (group,)
    ).fetchall()
    dead = {opener: is_dead(opener) for opener in {row[2] for row in rows}}
    gone = [
        (member, grp)
        for member, grp, opener, beat_ms, session_timeout_ms in rows
        if dead[opener] or beat_ms + session_timeout_ms < now_ms or beat_ms > now_ms + _REBOOTED_MS
    ]
    connection.executemany("DELETE FROM members WHERE member = ?", [(member,) for member, _ in gone])
    return sorted({grp for _, grp in gone})
