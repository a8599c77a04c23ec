"""The tables of the board in the embedded file, and the transactions of its operations."""

import sqlite3
from typing import Any, Final, NamedTuple

import orjson

from mesh.adapters.ports import ANY, Entry
from mesh.core.board import rules
from mesh.core.errors import Conflict

SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS board_life (
        one INTEGER PRIMARY KEY CHECK (one = 1), incarnation TEXT NOT NULL, inode TEXT NOT NULL) STRICT""",
    """CREATE TABLE IF NOT EXISTS board_complete (
        one INTEGER PRIMARY KEY CHECK (one = 1), incarnation TEXT NOT NULL) STRICT""",
    """CREATE TABLE IF NOT EXISTS board_past (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, nth INTEGER NOT NULL, value BLOB NOT NULL,
        incarnation TEXT NOT NULL, at_ms INTEGER NOT NULL, by TEXT NOT NULL, gone INTEGER NOT NULL, items INTEGER,
        total INTEGER NOT NULL) STRICT""",
    "CREATE UNIQUE INDEX IF NOT EXISTS board_past_key ON board_past (key, nth)",
    "CREATE TABLE IF NOT EXISTS board_key (key TEXT PRIMARY KEY) STRICT, WITHOUT ROWID",
    """CREATE TABLE IF NOT EXISTS board_op (
        id INTEGER PRIMARY KEY, key TEXT NOT NULL, op_id TEXT NOT NULL, nth INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        kind TEXT NOT NULL, answer BLOB NOT NULL, UNIQUE (key, op_id)) STRICT""",
    "CREATE UNIQUE INDEX IF NOT EXISTS board_op_nth ON board_op (key, nth)",
    """CREATE TABLE IF NOT EXISTS board_lease (
        key TEXT PRIMARY KEY, value BLOB NOT NULL, until_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS board_lease_until ON board_lease (until_ms)",
)
_NEXT_OP: Final = "SELECT 1 + coalesce(max(nth), 0) FROM board_op WHERE key = ?"
SWEEP: Final = 4
"""Number of stored answers checked for their age with each new one: above 1, so that old ones become fewer."""


class NewestRow(NamedTuple):
    """The newest row of a key. `version` is "" when it was deleted; `total` counts the bytes of all values so far."""

    nth: int
    total: int
    value: bytes | None
    version: str
    items: int | None


class BoardWrite(NamedTuple):
    """A write: its kind, key, writer and time, and the op_id that identifies a repetition."""

    kind: str
    key: str
    stored: str
    """The key in the tables, with its tag."""
    by: str
    op_id: str
    at_ms: int


def begin_incarnation(connection: sqlite3.Connection, inode: str, fresh: str) -> None:
    """Begin a new incarnation if the inode is not that of the last incarnation."""
    connection.execute(
        "INSERT INTO board_life VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE"
        " SET incarnation = excluded.incarnation, inode = excluded.inode WHERE inode <> excluded.inode",
        (fresh, inode),
    )


def incarnation(connection: sqlite3.Connection) -> str:
    """Return the incarnation of the store."""
    return str(connection.execute("SELECT incarnation FROM board_life").fetchone()[0])


def position(connection: sqlite3.Connection) -> int:
    """Return the version counter of the last change."""
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM board_past").fetchone()[0])


def newest(connection: sqlite3.Connection, key: str) -> NewestRow:
    """Return the newest row of a stored key."""
    row = connection.execute(
        "SELECT nth, total, iif(gone, NULL, value), iif(gone, '', (SELECT incarnation FROM board_life) || ':' || seq),"
        " items FROM board_past WHERE key = ? ORDER BY nth DESC LIMIT 1",
        (key,),
    ).fetchone()
    return NewestRow(0, 0, None, "", None) if row is None else NewestRow(*row)


def expected(connection: sqlite3.Connection, write: BoardWrite, expect: str) -> NewestRow:
    """Return the newest row if its version is the expected one. Raises Conflict."""
    before = newest(connection, write.stored)
    if expect not in (ANY, before.version):
        raise Conflict(write.key, expected=expect, current=before.version)
    return before


def store(
    connection: sqlite3.Connection,
    write: BoardWrite,
    before: NewestRow,
    value: bytes,
    *,
    gone: bool = False,
    items: int | None = None,
) -> Entry:
    current, nth, total = incarnation(connection), before.nth + 1, before.total + len(value)
    seq = connection.execute(
        "INSERT INTO board_past (key, nth, value, incarnation, at_ms, by, gone, items, total)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (write.stored, nth, value, current, write.at_ms, write.by, gone, items, total),
    ).lastrowid
    if gone:
        connection.execute("DELETE FROM board_key WHERE key = ?", (write.stored,))
    elif not before.version:
        connection.execute("INSERT INTO board_key VALUES (?)", (write.stored,))
    _trim(connection, write.stored, nth, total)
    return Entry(write.key, value, f"{current}:{seq}", write.at_ms, write.by)


def _trim(connection: sqlite3.Connection, key: str, newest: int, total: int) -> None:
    """Drop the oldest values beyond what history keeps; a single value always fits."""
    oldest = "SELECT nth, total - length(value) FROM board_past WHERE key = ? ORDER BY nth LIMIT 1"
    while True:
        nth, total_before = connection.execute(oldest, (key,)).fetchone()
        if newest - nth < rules.HISTORY_MAX and total - total_before <= rules.HISTORY_BYTES_MAX:
            return
        connection.execute("DELETE FROM board_past WHERE key = ? AND nth = ?", (key, nth))


def first_answer(connection: sqlite3.Connection, write: BoardWrite) -> list[Any] | None:
    """Return the first answer to this op_id. Raises InvalidInput if that was another kind of write."""
    if not write.op_id:
        return None
    row = connection.execute(
        "SELECT kind, answer FROM board_op WHERE key = ? AND op_id = ?", (write.stored, write.op_id)
    ).fetchone()
    if row is None:
        return None
    if row[0] != write.kind:
        raise rules.op_reused(write.key, write.op_id, row[0])
    answer: list[Any] = orjson.loads(row[1])
    return answer


def remember(connection: sqlite3.Connection, write: BoardWrite, answer: list[Any]) -> None:
    if not write.op_id:
        return
    (nth,) = connection.execute(_NEXT_OP, (write.stored,)).fetchone()
    connection.execute(
        "INSERT INTO board_op (key, op_id, nth, at_ms, kind, answer) VALUES (?, ?, ?, ?, ?, ?)",
        (write.stored, write.op_id, nth, write.at_ms, write.kind, orjson.dumps(answer)),
    )
    connection.execute("DELETE FROM board_op WHERE key = ? AND nth <= ?", (write.stored, nth - rules.OPS_MAX))
    connection.execute(
        "DELETE FROM board_op WHERE id IN (SELECT id FROM board_op ORDER BY id LIMIT ?) AND at_ms < ?",
        (SWEEP, write.at_ms - rules.OPS_TTL_MS),
    )


def remembered_entry(connection: sqlite3.Connection, write: BoardWrite, entry: Entry) -> Entry:
    remember(connection, write, [entry.version, entry.at_ms, entry.by])
    return entry


def first_entry(connection: sqlite3.Connection, write: BoardWrite, first: list[Any]) -> Entry:
    """Return the entry of the first answer. If the history has dropped its value, the entry has the current one."""
    version, at_ms, by = first
    row = connection.execute(
        "SELECT value FROM board_past WHERE seq = ? AND key = ?", (int(version.partition(":")[2]), write.stored)
    ).fetchone()
    value = row[0] if row else newest(connection, write.stored).value
    return Entry(write.key, b"null" if value is None else value, version, at_ms, by)
