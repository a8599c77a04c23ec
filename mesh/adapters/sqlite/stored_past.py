"""The past of the board in a temporary file: for a replay over a long time, whose board changes fill no memory.

SQLite removes the file when the process ends, however it ends.
"""

import sqlite3
from collections.abc import Container, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from mesh.core.board.past_values import PastValue, is_older

CACHE_KIB: Final = 32_768
STEP: Final = 5_000
"""Values of one transaction, and keys whose newest version is remembered."""
_COLUMNS: Final = "key, value, version, at_ms, writer"


class StoredPast:
    """As `MemoryPast`, in a file. A context that removes it; use it from one thread.

    With the path of a new `file`, another process can read it: a pickle of the past holds the path.
    """

    def __init__(self, since_ms: int = 0, file: str = "") -> None:
        self._since_ms, self._file = since_ms, file
        self._taken = 0
        self._newest: dict[str, str] = {}
        """Versions of the keys that were taken last."""
        self._connection = sqlite3.connect(file, isolation_level=None)  # without a path: a file without a name
        for statement in (
            f"PRAGMA cache_size = -{CACHE_KIB}",
            "PRAGMA journal_mode = OFF",
            "PRAGMA synchronous = OFF",
            "CREATE TABLE IF NOT EXISTS past (key TEXT, at_ms INTEGER, number INTEGER, value BLOB, version TEXT,"
            " writer TEXT, PRIMARY KEY (key, at_ms, number)) WITHOUT ROWID",
            "BEGIN",
        ):
            self._connection.execute(statement)

    def __reduce__(self) -> tuple[type["StoredPast"], tuple[int, str]]:
        """Make all values readable for the process that gets the pickle."""
        self._connection.execute("COMMIT")
        self._connection.execute("BEGIN")
        return StoredPast, (self._since_ms, self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def take(self, value: PastValue) -> None:
        """See MemoryPast.take."""
        standing = self._newest.get(value.key) or self._newest_of(value.key)
        if standing and is_older(value.version, standing):
            return
        if standing and value.at_ms < self._since_ms:
            self._connection.execute("DELETE FROM past WHERE key = ?", (value.key,))
        self._taken += 1
        row = (value.key, value.at_ms, self._taken, value.value, value.version, value.by)
        self._connection.execute("INSERT INTO past VALUES (?, ?, ?, ?, ?, ?)", row)
        if len(self._newest) >= STEP:
            self._newest.clear()
        self._newest[value.key] = value.version
        if self._taken % STEP == 0:
            self._connection.execute("COMMIT")
            self._connection.execute("BEGIN")

    def _newest_of(self, key: str) -> str:
        query = "SELECT version FROM past WHERE key = ? ORDER BY at_ms DESC, number DESC LIMIT 1"
        found = self._connection.execute(query, (key,)).fetchone()
        return "" if found is None else str(found[0])

    def at(self, key: str, at_ms: int, *, but: Container[str] = ()) -> PastValue | None:
        """See MemoryPast.at."""
        found = next(self._up_to(key, at_ms, but), None)
        return None if found is None or found.value is None else found

    def values(self, at_ms: int, *, but: Container[str] = ()) -> Sequence[PastValue]:
        """See MemoryPast.values."""
        keys = self._connection.execute("SELECT DISTINCT key FROM past ORDER BY key")
        found = (self.at(key, at_ms, but=but) for (key,) in keys)
        return [value for value in found if value is not None]

    def history(self, key: str, at_ms: int, *, but: Container[str] = ()) -> Sequence[PastValue]:
        """See MemoryPast.history."""
        return list(self._up_to(key, at_ms, but))

    def _up_to(self, key: str, at_ms: int, but: Container[str]) -> Iterator[PastValue]:
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM past WHERE key = ? AND at_ms <= ? ORDER BY at_ms DESC, number DESC", (key, at_ms)
        )
        return (value for value in map(PastValue._make, rows) if value.by not in but)
