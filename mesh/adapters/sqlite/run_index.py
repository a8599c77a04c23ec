"""The index of runs: one SQLite file that tells where the records of a run are and how it ended.

It is a cache. Any process that reads runs builds it forward, one at a time, and every step is one transaction together
with the places up to which the log was read. It may be deleted at any time. A file of another log, of other rules or
with damaged pages is dropped and begun again. A process that may not write keeps what it reads in temporary tables.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from mesh.adapters.private_files import make_file, make_folder
from mesh.adapters.sqlite import run_words
from mesh.adapters.sqlite.run_rows import (
    CHOOSING,
    COLUMNS,
    NAMES,
    ORDERS,
    conditions_of,
    endings_condition,
    entry_of,
    row_of,
)
from mesh.adapters.sqlite.run_words import RunWords
from mesh.core.history.run_entry import RunEntry, Spans
from mesh.core.history.run_query import RunQuery
from mesh.core.protocol.record import TopicPartition

FORMAT: Final = 2
MEMORY: Final = ":memory:"
NAMED_MAX: Final = 50
CACHE_KIB: Final = 65_536
BUSY_S: Final = 5.0
FIRST_MAX: Final = 1_000
"""Runs that are sorted for a listing at first. Only if it wants more of them, all are."""
_PAGE: Final = 200
_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS places (topic TEXT, partition INTEGER, next INTEGER NOT NULL, mark BLOB NOT NULL,"
    " PRIMARY KEY (topic, partition)) WITHOUT ROWID",
    f"CREATE TABLE IF NOT EXISTS runs (number INTEGER PRIMARY KEY, {COLUMNS})",
    "CREATE TABLE IF NOT EXISTS requests (id TEXT, run TEXT, PRIMARY KEY (id, run)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS by_subject ON runs (subject)",
    f"CREATE INDEX IF NOT EXISTS by_time ON runs ({CHOOSING})",
    "CREATE INDEX IF NOT EXISTS open_by_time ON runs (opened_ms) WHERE ending = 0",
    "CREATE TABLE IF NOT EXISTS common (partition INTEGER, offset INTEGER, PRIMARY KEY (partition, offset))"
    " WITHOUT ROWID",
    run_words.SCHEMA,
)
_TAIL: Final = (
    f"CREATE TEMP TABLE IF NOT EXISTS tail (number INTEGER PRIMARY KEY, {COLUMNS})",
    "CREATE TEMP TABLE IF NOT EXISTS tail_requests (id TEXT, run TEXT, PRIMARY KEY (id, run)) WITHOUT ROWID",
    "CREATE TEMP TABLE IF NOT EXISTS tail_common (partition INTEGER, offset INTEGER, PRIMARY KEY (partition, offset))",
    "CREATE TEMP TABLE IF NOT EXISTS replaced (number INTEGER PRIMARY KEY)",
    run_words.TAIL,
)
_BOTH: Final = (
    "(SELECT * FROM temp.tail UNION ALL SELECT * FROM main.runs WHERE number NOT IN (SELECT number FROM temp.replaced))"
)
_SAVE: Final = (
    f"INSERT INTO {{table}} (number, {', '.join(NAMES)}) VALUES (?, {', '.join('?' * len(NAMES))})"
    f" ON CONFLICT (run) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in NAMES[1:])}"
)

Place = tuple[int, int]
"""Partition and offset."""


class ReadPlace(NamedTuple):
    """The read position of a partition: the offset after the last record, and a mark of that record."""

    next: int
    mark: bytes


class RunIndexUnusable(Exception):
    """The file cannot be opened, read or written. `damaged`: it is to be dropped."""

    def __init__(self, reason: str, *, damaged: bool = False) -> None:
        super().__init__(reason)
        self.damaged = damaged


class RunIndexFile:
    """An open index. Use it from one thread."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.dropped = ""
        """Why an existing file was dropped; "" if none was."""
        self.writable = True
        self._tail = False
        self._tail_numbers = count(-1, -1)
        self._connection: sqlite3.Connection | None = None
        self._words = RunWords(lambda: self._connected)

    # ------------------------------------------------------------------------------------------------- open, close

    def open(self, identity: Mapping[str, str]) -> None:
        """Open the file, or make it. One with another identity, or damaged, is dropped first.

        Raises RunIndexUnusable.
        """
        wanted = {**identity, "format": str(FORMAT)}
        with _usable():
            try:
                found = self._open()
                if not found or found == wanted:
                    self._begin(wanted, new=not found)
                    return
                self.dropped = "it was made for another log or by another version"
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self.dropped = f"it is damaged: {error}"
            self.drop()
            self._open()
            self._begin(wanted, new=True)

    def _open(self) -> dict[str, str]:
        """Connect and return what the file says about itself; nothing for a new one."""
        if self.path != MEMORY:
            self.writable = self._make()
        self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=BUSY_S)
        execute = self._connection.execute
        if self.writable:
            execute("PRAGMA journal_mode = WAL")
            execute("PRAGMA synchronous = NORMAL")
        else:
            execute("PRAGMA query_only = ON")
        execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        execute("PRAGMA temp_store = MEMORY")
        tables = [name for (name,) in execute("SELECT name FROM sqlite_master").fetchall()]
        if "meta" not in tables:
            return {"tables": ",".join(tables)} if tables else {}
        return dict(execute("SELECT name, value FROM meta").fetchall())

    def _make(self) -> bool:
        """Make the file and its folder where they are missing; return whether the file may be written."""
        path = Path(self.path)
        if not path.exists():
            make_folder(path.parent)
            make_file(path)
        return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)

    def _begin(self, identity: Mapping[str, str], *, new: bool) -> None:
        execute = self._connected.execute
        if new:
            execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                execute(statement)
            self._connected.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", identity.items())
            execute("COMMIT")

    def drop(self) -> None:
        """Remove the file. Other processes that have it open go on with what they have."""
        self.close()
        self._tail = self._words.tail = False
        if self.path != MEMORY:
            for suffix in ("", "-wal", "-shm"):
                Path(self.path + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._words.forget()

    @property
    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RunIndexUnusable("the index is closed")
        return self._connection

    # ----------------------------------------------------------------------------------------------------- building

    @contextmanager
    def building(self) -> Iterator[bool]:
        """Be the one that builds. False: another process is, or the file cannot be written."""
        if self.path == MEMORY:
            yield True
            return
        if not self.writable:
            yield False
            return
        with open(f"{self.path}-lock", "wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def read_places(self) -> dict[TopicPartition, ReadPlace]:
        """Return how far each partition was read."""
        with _usable():
            rows = self._connected.execute("SELECT topic, partition, next, mark FROM places").fetchall()
        return {TopicPartition(topic, partition): ReadPlace(*read) for topic, partition, *read in rows}

    def save(
        self,
        entries: Mapping[str, RunEntry],
        common: Iterable[Place],
        places: Mapping[TopicPartition, ReadPlace],
    ) -> None:
        """Join these entries to those in the file, and note how far the log was read. All or nothing.

        `common`: records of the inbox that concern all runs.
        """
        with _usable(), self._transaction():
            self._join("runs", "requests", entries)
            self._connected.executemany("INSERT OR IGNORE INTO main.common VALUES (?, ?)", common)
            self._connected.executemany(
                "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)", [(*place, *read) for place, read in places.items()]
            )

    def add_tail(self, entries: Mapping[str, RunEntry], common: Iterable[Place]) -> None:
        """Join these entries to those in the file for this process alone."""
        with _usable():
            self._connected.execute("PRAGMA query_only = OFF")  # temporary tables are no part of the file
            for statement in () if self._tail else _TAIL:
                self._connected.execute(statement)
            self._tail = self._words.tail = True
            with self._transaction():
                self._join("tail", "tail_requests", entries)
                self._connected.executemany("INSERT OR IGNORE INTO temp.tail_common VALUES (?, ?)", common)
                names = orjson.dumps(list(entries)).decode()
                self._connected.execute(
                    "INSERT OR IGNORE INTO temp.replaced"
                    " SELECT number FROM main.runs WHERE run IN (SELECT value FROM json_each(?))",
                    (names,),
                )

    def _join(self, table: str, requests: str, entries: Mapping[str, RunEntry]) -> None:
        joined = dict(entries)
        for known in self._entries("run IN (SELECT value FROM json_each(?))", (orjson.dumps(list(entries)).decode(),)):
            later = joined[known.run_id]
            joined[known.run_id] = known
            known.absorb(later)
        numbers = self._tail_numbers if self._tail else repeat(None)  # the table of the file has its own
        rows = ((next(numbers), *row_of(entry, self._words)) for entry in joined.values())
        self._connected.executemany(_SAVE.format(table=table), rows)
        named = [(id, run) for run, entry in entries.items() for id in entry.requests if id != entry.subject]
        self._connected.executemany(f"INSERT OR IGNORE INTO {requests} VALUES (?, ?)", named)

    def remove_gone(self, inbox: Mapping[int, int], outcomes: Mapping[int, int]) -> None:
        """Remove the oldest runs of which the log has no record any more; its first offsets are given."""
        with _usable(), self._transaction():
            while True:
                oldest = list(self._entries("1 ORDER BY opened_ms LIMIT 1000"))
                gone = [(entry.run_id,) for entry in oldest if not is_there(entry, inbox, outcomes)]
                self._connected.executemany("DELETE FROM requests WHERE run = ?", gone)
                self._connected.executemany("DELETE FROM runs WHERE run = ?", gone)
                if len(gone) * 2 < len(oldest) or not gone:
                    break
            self._connected.executemany("DELETE FROM common WHERE partition = ? AND offset < ?", inbox.items())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connected.execute("BEGIN IMMEDIATE" if self.writable else "BEGIN")
        try:
            yield
        except BaseException:
            self._connected.execute("ROLLBACK")
            self._words.forget()
            raise
        self._connected.execute("COMMIT")

    # ------------------------------------------------------------------------------------------------------ looking

    def entry(self, run_id: str) -> RunEntry | None:
        """Return the entry of a run."""
        with _usable():
            return next(self._entries("run = ?", (run_id,)), None)

    def named(self, name: str) -> list[str]:
        """Return the run of this id, else those with a request of this id or subject, else those with this prefix."""
        with _usable():
            if next(self._entries("run = ?", (name,)), None) is not None:
                return [name]
            found = [entry.run_id for entry in self._entries(f"subject = ? LIMIT {NAMED_MAX}", (name,))]
            for table in ("requests", *(("tail_requests",) if self._tail else ())):
                query = f"SELECT run FROM {table} WHERE id = ? LIMIT {NAMED_MAX}"
                found += [run for (run,) in self._connected.execute(query, (name,)).fetchall()]
            if not found:
                until = name + "\U0010ffff"
                where = f"run >= ? AND run < ? LIMIT {NAMED_MAX}"
                found = [entry.run_id for entry in self._entries(where, (name, until))]
        return list(dict.fromkeys(found))

    def common(self, partition: int) -> Spans:
        """Return the places of the records in a partition of the inbox that concern all runs."""
        with _usable():
            found: Spans = []
            for table in ("main.common", *(("temp.tail_common",) if self._tail else ())):
                query = f"SELECT offset, offset FROM {table} WHERE partition = ? ORDER BY offset"
                found += self._connected.execute(query, (partition,)).fetchall()
        return found

    def ended(self, query: RunQuery) -> Iterator[RunEntry]:
        """Yield the runs that ended and that a query wants, in its order."""
        with _usable():
            seen: set[str] = set()
            numbers = self._numbers(query)
            while page := list(islice(numbers, _PAGE)):
                rows = self._numbered(page)
                for entry in (rows[number] for number in page if number in rows):
                    if not self._tail or entry.run_id not in seen:  # another process may have added it meanwhile
                        yield entry
                seen.update(entry.run_id for entry in rows.values() if self._tail)

    def _numbers(self, query: RunQuery) -> Iterator[int]:
        """Yield the numbers of these runs, found in the index by time alone but for the subject."""
        conditions, values = conditions_of(query, self._words, self._source)
        condition, endings = endings_condition(query, self._words)
        source = self._source if self._tail else "runs INDEXED BY by_time"
        order, values = ORDERS[query.sort], [endings, *values]
        select = f"SELECT number FROM {source} WHERE {' AND '.join([condition, *conditions])} ORDER BY {order}"
        first = 0
        if query.sort != "started":  # the index has that order; else the first ones are found without sorting all
            rows = self._connected.execute(f"{select} LIMIT {FIRST_MAX}", values).fetchall()
            yield from (number for (number,) in rows)
            first = FIRST_MAX
            if len(rows) < first:
                return
        yield from (number for (number,) in islice(self._connected.execute(select, values), first, None))

    def _numbered(self, numbers: Sequence[int]) -> dict[int, RunEntry]:
        rows = self._connected.execute(
            f"SELECT number, {', '.join(NAMES)} FROM {self._source} WHERE number IN (SELECT value FROM json_each(?))",
            (orjson.dumps(numbers).decode(),),
        )
        return {number: entry_of(row, self._words) for number, *row in rows.fetchall()}

    def open_runs(self, query: RunQuery) -> Iterator[RunEntry]:
        """Yield the runs without an ending that a query may want, the newest first. They are to be folded."""
        unknown = query._replace(agent="", code="", tasks_min=None, usd_micros_min=None)
        conditions, values = conditions_of(unknown, self._words, self._source)
        where = " AND ".join(["ending = 0 AND late = '' AND home >= 0", *conditions])
        with _usable():
            yield from self._entries(f"{where} ORDER BY opened_ms DESC", values)

    def count(self) -> int:
        """Return the number of runs."""
        with _usable():
            return int(self._connected.execute(f"SELECT count(*) FROM {self._source}").fetchone()[0])

    @property
    def _source(self) -> str:
        return _BOTH if self._tail else "runs"

    def _entries(self, where: str, values: Sequence[Any] = ()) -> Iterator[RunEntry]:
        rows = self._connected.execute(f"SELECT {', '.join(NAMES)} FROM {self._source} WHERE {where}", values)
        while page := rows.fetchmany(_PAGE):
            yield from (entry_of(row, self._words) for row in page)


def is_there(entry: RunEntry, inbox: Mapping[int, int], outcomes: Mapping[int, int]) -> bool:
    """Whether the log has a record of a run, whose partitions begin at these offsets."""
    here = [
        spans[-1][1] >= starts.get(home, 0)
        for spans, home, starts in ((entry.inbox, entry.home, inbox), (entry.outcomes, entry.outcomes_home, outcomes))
        if spans
    ]
    return any(here)


def is_damage(error: Exception) -> bool:
    """Whether the file is damaged or no index, so that another one must be begun."""
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


@contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise RunIndexUnusable(str(error), damaged=is_damage(error)) from error
