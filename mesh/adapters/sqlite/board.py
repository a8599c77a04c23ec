"""The board in the embedded file: the promises of the board on Redis, for several processes on one machine.

The counter of a version is the row number of the value in `board_past`, which has every value once. The newest row of a
key is its value, the older ones are its history, and `watch` follows all rows in order. A watcher misses a change only
when it is later than the history of that key reaches.

The incarnation is stored with the file's inode: a copied or restored file is another incarnation. Only a copy written
*over* the file in place is not noticed; move it there instead. Times are the machine's, which all processes share.

Several meshes may keep boards in one file: keys are stored behind a tag made of the prefix (those of `mesh` are not).
"""

import asyncio
import os
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Final, Literal, TypeVar

from mesh.adapters.ports import ABSENT, ANY, Clock, Completeness, Count, Entry, Limit
from mesh.adapters.sqlite import board_tables as rows
from mesh.adapters.sqlite.storage.file import BOARD_CHANNEL, SqliteFile
from mesh.core.board import rules
from mesh.core.errors import BoardUnavailable

T = TypeVar("T")

_PAST: Final = "SELECT key, value, incarnation || ':' || seq, at_ms, by FROM board_past"
_WATCH_BATCH: Final = 500
UNTAGGED: Final = "mesh"
"""The prefix whose keys are stored without a tag."""
TAG: Final = "\x7f"  # encloses the prefix of a stored key; no key holds it, and it sorts behind all characters of keys
_KEYS_BATCH: Final = 1_000


class SqliteBoard:
    """`Board` in an embedded file, given as a path or as the `SqliteFile` of this process's log. Call `start` first.

    `mirrored`: a log elsewhere mirrors this board, so that a new incarnation is incomplete until `mark_complete`. In
    the log's own file a board is always complete.
    """

    def __init__(
        self,
        file: SqliteFile | str | Path,
        *,
        prefix: str = UNTAGGED,
        synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
        timeout_ms: float = 250.0,
        clock: Clock | None = None,
        mirrored: bool = False,
    ) -> None:
        """`prefix`: the prefix of the mesh. Boards of other prefixes in the same file have other keys."""
        self._mirrored = mirrored
        self._tag = "" if prefix == UNTAGGED else f"{TAG}{prefix}{TAG}"
        self._file = file if isinstance(file, SqliteFile) else SqliteFile(file, synchronous=synchronous)
        self._timeout_ms = timeout_ms
        self._clock = clock or self._file.clock

    @property
    def url(self) -> str:
        return f"sqlite:{self._file.path}"

    async def start(self) -> None:
        """Make the tables and read or begin the incarnation.

        Raises BoardUnavailable, or ConfigInvalid for a file of a later version.
        """
        await self._file.start(rows.SCHEMA, kind=BoardUnavailable)
        try:
            await self._file.agree_on_time(lambda _: 0, kind=BoardUnavailable)
            inode, fresh = str(os.stat(self._file.path).st_ino), secrets.token_hex(6)
            await self._write("start", lambda connection: rows.begin_incarnation(connection, inode, fresh), wakes=())
        except BaseException:
            await self._file.close()
            raise

    async def close(self) -> None:
        await self._file.close()

    async def incarnation(self) -> str:
        return self._read("incarnation", rows.incarnation)

    async def completeness(self) -> Completeness:
        return Completeness(self._read("completeness", self._complete))

    async def mark_complete(self, incarnation: str) -> bool:
        def job(connection: sqlite3.Connection) -> bool:
            connection.execute("INSERT OR REPLACE INTO board_complete VALUES (1, ?)", (incarnation,))
            return rows.incarnation(connection) == incarnation

        return await self._write("mark complete", job, wakes=())

    async def get(self, key: str) -> Entry | None:
        rules.check_key(key)
        statement = (
            "SELECT key, value, (SELECT incarnation FROM board_life) || ':' || seq, at_ms, by, gone"
            " FROM board_past WHERE key = ? ORDER BY nth DESC LIMIT 1"
        )
        row = self._read("get", lambda connection: connection.execute(statement, (self._tag + key,)).fetchone())
        return None if row is None or row[5] else Entry(key, *row[1:5])

    async def put(self, key: str, value: bytes, *, expect: str = ANY, by: str = "", op_id: str = "") -> Entry:
        rules.check_write(key, op_id, by)
        rules.check_value(key, value)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))
        write = self._board_write("put", key, by, op_id)

        def job(connection: sqlite3.Connection) -> Entry:
            if (first := rows.first_answer(connection, write)) is not None:
                return rows.first_entry(connection, write, first)
            if expect == ABSENT and not op_id.startswith(rules.RESTORE_OP):
                self._require_complete(connection, key)
            before = rows.expected(connection, write, expect)
            return rows.remembered_entry(connection, write, rows.store(connection, write, before, value))

        return await self._write("put", job)

    async def delete(self, key: str, *, expect: str = ANY, by: str = "", op_id: str = "") -> bool:
        rules.check_write(key, op_id, by)
        rules.check_expect(expect, wildcards=(ANY, ABSENT))
        write = self._board_write("delete", key, by, op_id)

        def job(connection: sqlite3.Connection) -> bool:
            if (first := rows.first_answer(connection, write)) is not None:
                return bool(first[0])
            before = rows.expected(connection, write, expect)
            if before.version:
                rows.store(connection, write, before, b"null", gone=True)
            rows.remember(connection, write, [bool(before.version)])
            return bool(before.version)

        return await self._write("delete", job)

    async def append(self, key: str, item: bytes, *, items_max: int, by: str = "", op_id: str = "") -> Entry:
        rules.check_write(key, op_id, by)
        text = rules.check_item(key, item, items_max)
        write = self._board_write("append", key, by, op_id)

        def job(connection: sqlite3.Connection) -> Entry:
            if (first := rows.first_answer(connection, write)) is not None:
                return rows.first_entry(connection, write, first)
            self._require_complete(connection, key)
            before = rows.newest(connection, write.stored)
            array, items = rules.pushed(key, before.value, before.items, text, items_max)
            return rows.remembered_entry(connection, write, rows.store(connection, write, before, array, items=items))

        return await self._write("append", job)

    async def add(
        self, key: str, amount: int, *, value_max: Limit = None, value_min: Limit = None, by: str = "", op_id: str = ""
    ) -> Count:
        rules.check_write(key, op_id, by)
        low, high = rules.check_counter(key, amount, value_min, value_max)
        write = self._board_write("add", key, by, op_id)

        def job(connection: sqlite3.Connection) -> Count:
            if (first := rows.first_answer(connection, write)) is not None:
                return Count(*first)
            self._require_complete(connection, key)
            before = rows.newest(connection, write.stored)
            value = rules.counter_of(key, before.value)
            count = Count(value, False)
            if low <= value + amount <= high:
                entry = rows.store(connection, write, before, b"%d" % (value + amount))
                count = Count(value + amount, True, entry.version, entry.at_ms)
            rows.remember(connection, write, list(astuple(count)))
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
            connection.execute(f"DELETE FROM board_lease WHERE key IN ({old})", (now_ms, rows.SWEEP))
            return value

        return await self._write("lease", job, wakes=())

    async def history(self, key: str, *, limit: int = 100) -> Sequence[Entry]:
        rules.check_key(key)
        statement, asked = (
            f"{_PAST} WHERE key = ? ORDER BY nth DESC LIMIT ?",
            (self._tag + key, rules.check_limit(limit)),
        )
        found = self._read("history", lambda connection: connection.execute(statement, asked).fetchall())
        return [Entry(key, *row[1:]) for row in found]

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
            await asyncio.sleep(0)  # reads run on this thread: let other tasks run

    async def watch(self, pattern: str = "*") -> AsyncGenerator[Entry, None]:
        matches = rules.glob(pattern)
        return self._follow(matches, self._read("watch", rows.position))

    async def _follow(self, matches: Callable[[str], bool], position: int) -> AsyncGenerator[Entry, None]:
        news, single = "SELECT seq, key FROM board_past WHERE seq > ? ORDER BY seq LIMIT ?", f"{_PAST} WHERE seq = ?"
        wakeup = self._file.subscribe((BOARD_CHANNEL,))
        try:
            while True:
                wakeup.clear()
                after = (position, _WATCH_BATCH)
                page = self._read("watch", lambda c, after=after: c.execute(news, after).fetchall())
                for position, stored in page:
                    key = self._own_key(stored)
                    if key is not None and matches(key):
                        row = self._read("watch", lambda c, at=position: c.execute(single, (at,)).fetchone())
                        if row:
                            yield Entry(key, *row[1:])
                if len(page) < _WATCH_BATCH:
                    await wakeup.wait()
        finally:
            wakeup.close()

    def _complete(self, connection: sqlite3.Connection) -> bool:
        joined = "SELECT 1 FROM board_complete JOIN board_life USING (incarnation)"
        return not self._mirrored or connection.execute(joined).fetchone() is not None

    def _require_complete(self, connection: sqlite3.Connection, key: str) -> None:
        if not self._complete(connection):
            raise rules.incomplete(key, self.url)

    def _board_write(self, kind: str, key: str, by: str, op_id: str) -> rows.BoardWrite:
        return rows.BoardWrite(kind, key, self._tag + key, by, op_id, self._clock.now_ms())

    def _own_key(self, stored: str) -> str | None:
        """Return the key of a stored key; None if it is another board's."""
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
