"""Consumer groups in the file: members, who owns which partition, who is to own it, and the groups' commits.

Every function is a job of the writer thread or a short read. A change of membership sets new *targets* at once; a
partition changes its *owner* only when the old one has released it, left, or missed its session timeout. So at most
one living member owns a partition, and only its owner can commit.

Heartbeats are compared in milliseconds of the machine's monotonic clock, which all its processes share. Whoever was
killed is expelled as soon as somebody looks; the session timeout is for who was stopped or lost the disk.
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
"""A heartbeat this far in the future is from before the machine was started."""


IsDead = Callable[[str], bool]
"""Whether the opener of that name (`SqliteFile.opener`) was killed."""


class MemberView(NamedTuple):
    """What the file says about a member."""

    alive: bool
    owned: frozenset[int]
    """Partition numbers that are ours, also those we are to give away."""
    kept: frozenset[int]
    """Those that are meant to be ours."""


def channel(group: int) -> int:
    """The wake-up channel of a group (`SqliteFile.subscribe`)."""
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
    """Add a member and share the partitions anew. Answers the group's number."""
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
    """Remove a member; what it owned goes to its new owners at once."""
    connection.execute("DELETE FROM members WHERE member = ?", (member,))
    rebalance(connection, group)


def release(connection: sqlite3.Connection, group: int, member: str, partitions: Iterable[int]) -> None:
    """The member has let go of these: hand them over."""
    connection.execute(
        "UPDATE owners SET owner = target WHERE grp = ? AND owner = ?"
        " AND partition IN (SELECT value FROM json_each(?))",
        (group, member, json.dumps(list(partitions))),
    )


def beat(
    connection: sqlite3.Connection, members: Sequence[str], now_ms: float, *, is_dead: IsDead, judge: bool
) -> tuple[list[str], list[int]]:
    """These members live. Answers those of them that were expelled before, and the groups that changed just now.

    `judge`: expel whoever is dead or late, in any group. A process that was stopped itself must not: its peers may
    have been stopped with it and only need a moment to say so.
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
    """Set who is to own what. What nobody owns, or a member that is gone, changes hands at once."""
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
    """What belongs to a member now, and what is meant to."""
    alive = connection.execute("SELECT 1 FROM members WHERE member = ?", (member,)).fetchone() is not None
    rows = connection.execute(
        "SELECT partition, target FROM owners WHERE grp = ? AND owner = ?", (group, member)
    ).fetchall()
    return MemberView(alive, frozenset(p for p, _ in rows), frozenset(p for p, target in rows if target == member))


def commit(connection: sqlite3.Connection, group: int, member: str, commits: Mapping[int, Commit]) -> None:
    """Store places by partition number. Raises Fenced, and stores nothing, unless the member owns them all."""
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
            f"somebody else since generation {generation} or before",
            remedy="Drop what was read; `poll` hands out the partitions anew",
        )
    _store(connection, group, commits)


def _store(connection: sqlite3.Connection, group: int, commits: Mapping[int, Commit]) -> None:
    connection.executemany(
        "INSERT INTO commits (grp, partition, offset, metadata) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (grp, partition) DO UPDATE SET offset = excluded.offset, metadata = excluded.metadata",
        [(group, number, place.offset, place.metadata) for number, place in commits.items()],
    )


def committed(connection: sqlite3.Connection, group: str, first: int, partitions: int) -> dict[int, Commit]:
    """Places of a group by partition number, for `partitions` numbers from `first` on."""
    rows = connection.execute(
        "SELECT partition, offset, metadata FROM commits WHERE grp = (SELECT number FROM groups WHERE name = ?)"
        " AND partition >= ? AND partition < ? ORDER BY partition",
        (group, first, first + partitions),
    ).fetchall()
    return {number: Commit(offset, metadata) for number, offset, metadata in rows}


def idle(connection: sqlite3.Connection, names: Sequence[str], is_dead: IsDead) -> list[str]:
    """Those of these groups that have no member, or only such whose process was killed."""
    rows = connection.execute(
        "SELECT g.name, m.opener FROM members AS m JOIN groups AS g ON g.number = m.grp"
        " WHERE g.name IN (SELECT value FROM json_each(?))",
        (json.dumps(list(names)),),
    ).fetchall()
    busy = {name for name, opener in rows if not is_dead(opener)}
    return [name for name in names if name not in busy]


def commit_idle(connection: sqlite3.Connection, name: str, commits: Mapping[int, Commit], is_dead: IsDead) -> None:
    """Store places of a group that has no member. Raises Fenced."""
    if not idle(connection, [name], is_dead):
        raise Fenced(f"group {name} has members, who commit for themselves")
    connection.execute("INSERT OR IGNORE INTO groups (name) VALUES (?)", (name,))
    (number,) = connection.execute("SELECT number FROM groups WHERE name = ?", (name,)).fetchone()
    _store(connection, number, commits)


def _expel(connection: sqlite3.Connection, is_dead: IsDead, now_ms: float, group: int | None = None) -> list[int]:
    """Remove members that were killed or missed their session timeout; answers their groups, to be rebalanced."""
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
