"""The board in the embedded file: same promises as on Redis, for several processes on one machine.

The counter of a version is the row number of the value in `board_past`, where every value stands once: the newest of
a key is its value, the older ones are its history, all of them in order are what `watch` follows. A watcher misses a
change only when it is later than the history of that key reaches.

The incarnation stands in the file together with the file's inode: a file that was copied or put back from a copy is
another life. Only a copy written *over* the file in place is not noticed; move it there instead. Times are the
machine's, which all processes share.

Several meshes may keep boards in one file: keys are stored behind a tag made of the prefix (those of `mesh` are not).
"""

import asyncio
import os
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar

import orjson

from mesh.core import board as rules
from mesh.core.errors import BoardUnavailable, Conflict
from mesh.wire.clock import SystemClock
from mesh.wire.ports import ABSENT, ANY, Clock, Count, Entry, Limit
from mesh.wire.sqlite.file import BOARD_CHANNEL, SqliteFile

T = TypeVar("T")

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS board_life (
        one INTEGER PRIMARY KEY CHECK (one = 1), incarnation TEXT NOT NULL, inode TEXT NOT NULL) STRICT""",
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
_PAST: Final = "SELECT key, value, incarnation || ':' || seq, at_ms, by FROM board_past"
_NEXT_OP: Final = "SELECT 1 + coalesce(max(nth), 0) FROM board_op WHERE key = ?"
_SWEEP: Final = 4
"""Remembered answers looked at for their age with each new one: more than one, so that old ones become fewer."""
_WATCH_BATCH: Final = 500
UNTAGGED: Final = "mesh"
"""The prefix whose keys are stored as they are."""
TAG: Final = "\x7f"  # around the prefix, before a stored key; no key holds it, and it sorts behind all that keys hold
_KEYS_BATCH: Final = 1_000


class _Value(NamedTuple):
    """The newest row of a key. `version` is "" when it was deleted; `total` counts the bytes of all values so far."""

    nth: int
    total: int
    value: bytes | None
    version: str
    items: int | None


class _Write(NamedTuple):
    """Who writes what kind of thing when, and the name by which its repetition is known."""

    kind: str
    key: str
    stored: str
    """The key as it stands in the tables."""
    by: str
    op_id: str
    at_ms: int


class SqliteBoard:
    """`Board` in an embedded file, beside whatever else it holds: given as the `SqliteFile` that a log of this
    process uses too, or as a path. Call `start` first."""

    def __init__(
        self,
        file: SqliteFile | str | Path,
        *,
        prefix: str = UNTAGGED,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        timeout_ms: float = 250.0,
        clock: Clock | None = None,
    ) -> None:
        """`prefix`: of the mesh whose board this is; boards of other prefixes in the same file have other keys."""
        self._tag = "" if prefix == UNTAGGED else f"{TAG}{prefix}{TAG}"
        self._file = file if isinstance(file, SqliteFile) else SqliteFile(file, synchronous=synchronous)
        self._timeout_ms = timeout_ms
        self._clock = clock or SystemClock()

    @property
    def url(self) -> str:
        return f"sqlite:{self._file.path}"

    async def start(self) -> None:
        """Make the tables and know this life of the file. Raises BoardUnavailable, or ConfigInvalid for a file of a
        later version."""
        await self._file.start(_SCHEMA, kind=BoardUnavailable)
        try:
            inode, fresh = str(os.stat(self._file.path).st_ino), secrets.token_hex(6)
            await self._write("start", lambda connection: _settle_life(connection, inode, fresh), wakes=())
        except BaseException:
            await self._file.close()
            raise

    async def close(self) -> None:
        await self._file.close()

    async def incarnation(self) -> str:
        return self._read("incarnation", _incarnation)

    async def get(self, key: str) -> Entry | None:
        rules.check_key(key)
        statement = (
            "SELECT key, value, (SELECT incarnation FROM board_life) || ':' || seq, at_ms, by, gone"
            " FROM board_past WHERE key = ? ORDER BY nth DESC LIMIT 1"
        )
        row = self._read("get", lambda connection: connection.execute(statement, (self._tag + key,)).fetchone())
        return None if row is None or row[5] else Entry(key, *row[1:5])

    async def put(self, key: str, value: bytes, *, expect: str = ANY, by: str = "", op_id: str = "") -> Entry:
        rules.check_key(key)
        rules.check_op(op_id, by)
        rules.check_value(key, value)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))
        write = self._named("put", key, by, op_id)

        def job(connection: sqlite3.Connection) -> Entry:
            if (first := _repeated(connection, write)) is not None:
                return _first_entry(connection, write, first)
            before = _expected(connection, write, expect)
            return _remembered_entry(connection, write, _store(connection, write, before, value))

        return await self._write("put", job)

    async def delete(self, key: str, *, expect: str = ANY, by: str = "", op_id: str = "") -> bool:
        rules.check_key(key)
        rules.check_op(op_id, by)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))
        write = self._named("delete", key, by, op_id)

        def job(connection: sqlite3.Connection) -> bool:
            if (first := _repeated(connection, write)) is not None:
                return bool(first[0])
            before = _expected(connection, write, expect)
            if before.version:
                _store(connection, write, before, b"null", gone=True)
            _remember(connection, write, [bool(before.version)])
            return bool(before.version)

        return await self._write("delete", job)

    async def append(self, key: str, item: bytes, *, items_max: int, by: str = "", op_id: str = "") -> Entry:
        rules.check_key(key)
        rules.check_op(op_id, by)
        text = rules.check_item(key, item, items_max)
        write = self._named("append", key, by, op_id)

        def job(connection: sqlite3.Connection) -> Entry:
            if (first := _repeated(connection, write)) is not None:
                return _first_entry(connection, write, first)
            before = _newest(connection, write.stored)
            pushed = rules.pushed(before.value, before.items, text, items_max)
            if pushed is None:
                raise rules.not_an_array(key)
            array, items = pushed
            if len(array) > rules.VALUE_BYTES_MAX:
                raise rules.too_large(key, len(array))
            return _remembered_entry(connection, write, _store(connection, write, before, array, items=items))

        return await self._write("append", job)

    async def add(
        self, key: str, amount: int, *, value_max: Limit = None, value_min: Limit = None, by: str = "", op_id: str = ""
    ) -> Count:
        rules.check_key(key)
        rules.check_op(op_id, by)
        low, high = rules.check_counter(key, amount, value_min, value_max)
        write = self._named("add", key, by, op_id)

        def job(connection: sqlite3.Connection) -> Count:
            if (first := _repeated(connection, write)) is not None:
                return Count(*first)
            before = _newest(connection, write.stored)
            value = 0 if before.value is None else rules.counter_of(before.value)
            if value is None:
                raise rules.not_a_counter(key)
            count = Count(value, False)
            if low <= value + amount <= high:
                entry = _store(connection, write, before, b"%d" % (value + amount))
                count = Count(value + amount, True, entry.version, entry.at_ms)
            _remember(connection, write, list(astuple(count)))
            return count

        return await self._write("add", job)

    async def lease(self, key: str, value: bytes, *, ttl_ms: int, expect: bytes = b"") -> bytes:
        rules.check_lease(key, value, ttl_ms)
        now_ms, stored = self._clock.now_ms(), self._tag + key

        def job(connection: sqlite3.Connection) -> bytes:
            row = connection.execute("SELECT value, until_ms FROM board_lease WHERE key = ?", (stored,)).fetchone()
            stands: bytes = b"" if row is None or row[1] <= now_ms else row[0]
            if stands != expect:
                return stands
            connection.execute("INSERT OR REPLACE INTO board_lease VALUES (?, ?, ?)", (stored, value, now_ms + ttl_ms))
            old = "SELECT key FROM board_lease WHERE until_ms < ? ORDER BY until_ms LIMIT ?"
            connection.execute(f"DELETE FROM board_lease WHERE key IN ({old})", (now_ms, _SWEEP))
            return value

        return await self._write("lease", job, wakes=())

    async def history(self, key: str, *, limit: int = 100) -> Sequence[Entry]:
        rules.check_key(key)
        statement, asked = (
            f"{_PAST} WHERE key = ? ORDER BY nth DESC LIMIT ?",
            (self._tag + key, rules.check_limit(limit)),
        )
        rows = self._read("history", lambda connection: connection.execute(statement, asked).fetchall())
        return [Entry(key, *row[1:]) for row in rows]

    async def keys(self, pattern: str = "*") -> Sequence[str]:
        matches, prefix = rules.glob(pattern), rules.glob_prefix(pattern)
        statement = "SELECT key FROM board_key WHERE key >= ? AND key < ? ORDER BY key LIMIT ?"
        found: list[str] = []
        low, high = self._tag + prefix, f"{self._tag}{prefix}\x7f"  # keys hold no character from \x7f on
        while True:
            bounds = (low, high, _KEYS_BATCH)
            page = self._read("keys", lambda c, bounds=bounds: [k for (k,) in c.execute(statement, bounds).fetchall()])
            found += filter(matches, (stored.removeprefix(self._tag) for stored in page))
            if len(page) < _KEYS_BATCH:
                return found
            low = page[-1] + "\0"
            await asyncio.sleep(0)  # reading happens on this thread: let others have their turn

    async def watch(self, pattern: str = "*") -> AsyncGenerator[Entry, None]:
        matches = rules.glob(pattern)
        return self._follow(matches, self._read("watch", _position))

    async def _follow(self, matches: Callable[[str], bool], position: int) -> AsyncGenerator[Entry, None]:
        news, single = "SELECT seq, key FROM board_past WHERE seq > ? ORDER BY seq LIMIT ?", f"{_PAST} WHERE seq = ?"
        wakeup = self._file.subscribe((BOARD_CHANNEL,))
        try:
            while True:
                wakeup.clear()
                after = (position, _WATCH_BATCH)
                page = self._read("watch", lambda c, after=after: c.execute(news, after).fetchall())
                for position, stored in page:
                    key = self._own(stored)
                    if key is not None and matches(key):
                        row = self._read("watch", lambda c, at=position: c.execute(single, (at,)).fetchone())
                        if row:
                            yield Entry(key, *row[1:])
                if len(page) < _WATCH_BATCH:
                    await wakeup.wait()
        finally:
            wakeup.close()

    def _named(self, kind: str, key: str, by: str, op_id: str) -> _Write:
        return _Write(kind, key, self._tag + key, by, op_id, self._clock.now_ms())

    def _own(self, stored: str) -> str | None:
        """The key that is stored so; None if it is another board's."""
        key = stored.removeprefix(self._tag)
        return None if key.startswith(TAG) or (self._tag and key == stored) else key

    def _read(self, operation: str, job: Callable[..., T]) -> T:
        return self._file.read(job, operation=f"board {operation}", kind=BoardUnavailable)

    async def _write(
        self, operation: str, job: Callable[[sqlite3.Connection], T], *, wakes: Sequence[int] = (BOARD_CHANNEL,)
    ) -> T:
        return await self._file.write(
            job, timeout_ms=self._timeout_ms, operation=f"board {operation}", kind=BoardUnavailable, wakes=wakes
        )


# ------------------------------------------------------------------------------- inside a transaction of the writer


def _settle_life(connection: sqlite3.Connection, inode: str, fresh: str) -> None:
    connection.execute(
        "INSERT INTO board_life VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE"
        " SET incarnation = excluded.incarnation, inode = excluded.inode WHERE inode <> excluded.inode",
        (fresh, inode),
    )


def _incarnation(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT incarnation FROM board_life").fetchone()[0])


def _position(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT coalesce(max(seq), 0) FROM board_past").fetchone()[0])


def _newest(connection: sqlite3.Connection, key: str) -> _Value:
    row = connection.execute(
        "SELECT nth, total, iif(gone, NULL, value), iif(gone, '', (SELECT incarnation FROM board_life) || ':' || seq),"
        " items FROM board_past WHERE key = ? ORDER BY nth DESC LIMIT 1",
        (key,),
    ).fetchone()
    return _Value(0, 0, None, "", None) if row is None else _Value(*row)


def _expected(connection: sqlite3.Connection, write: _Write, expect: str) -> _Value:
    """The newest value, if its version is the expected one; else Conflict."""
    before = _newest(connection, write.stored)
    if expect not in (ANY, before.version):
        raise Conflict(write.key, expected=expect, current=before.version)
    return before


def _store(
    connection: sqlite3.Connection,
    write: _Write,
    before: _Value,
    value: bytes,
    *,
    gone: bool = False,
    items: int | None = None,
) -> Entry:
    incarnation, nth, total = _incarnation(connection), before.nth + 1, before.total + len(value)
    seq = connection.execute(
        "INSERT INTO board_past (key, nth, value, incarnation, at_ms, by, gone, items, total)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (write.stored, nth, value, incarnation, write.at_ms, write.by, gone, items, total),
    ).lastrowid
    if gone:
        connection.execute("DELETE FROM board_key WHERE key = ?", (write.stored,))
    elif not before.version:
        connection.execute("INSERT INTO board_key VALUES (?)", (write.stored,))
    _trim(connection, write.stored, nth, total)
    return Entry(write.key, value, f"{incarnation}:{seq}", write.at_ms, write.by)


def _trim(connection: sqlite3.Connection, key: str, newest: int, total: int) -> None:
    """Drop the oldest values beyond what history keeps; a single value always fits."""
    oldest = "SELECT nth, total - length(value) FROM board_past WHERE key = ? ORDER BY nth LIMIT 1"
    while True:
        nth, total_before = connection.execute(oldest, (key,)).fetchone()
        if newest - nth < rules.HISTORY_MAX and total - total_before <= rules.HISTORY_BYTES_MAX:
            return
        connection.execute("DELETE FROM board_past WHERE key = ? AND nth = ?", (key, nth))


def _repeated(connection: sqlite3.Connection, write: _Write) -> list[Any] | None:
    """What was answered to this op_id the first time. Raises InvalidInput if that was another kind of write."""
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


def _remember(connection: sqlite3.Connection, write: _Write, answer: list[Any]) -> None:
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
        (_SWEEP, write.at_ms - rules.OPS_TTL_MS),
    )


def _remembered_entry(connection: sqlite3.Connection, write: _Write, entry: Entry) -> Entry:
    _remember(connection, write, [entry.version, entry.at_ms, entry.by])
    return entry


def _first_entry(connection: sqlite3.Connection, write: _Write, first: list[Any]) -> Entry:
    """The entry answered the first time. A value that history has dropped meanwhile is answered as it stands now."""
    version, at_ms, by = first
    row = connection.execute(
        "SELECT value FROM board_past WHERE seq = ? AND key = ?", (int(version.partition(":")[2]), write.stored)
    ).fetchone()
    value = row[0] if row else _newest(connection, write.stored).value
    return Entry(write.key, b"null" if value is None else value, version, at_ms, by)
