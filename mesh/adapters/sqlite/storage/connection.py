"""The settings of a process's connections to the file."""

import sqlite3
import time
from pathlib import Path

from mesh.adapters.sqlite.storage.failure import is_busy

WAL_BYTES_MAX = 128 * 1024 * 1024
FREE_SHARE_MAX = 4
"""Reciprocal of the share of pages that may be free."""
_PAGES_A_STEP = 512
_OPEN_TIMEOUT_S = 10.0
_READ_BUSY_S = 1.0
_RESTART_BUSY_MS = 50


def open_writing(path: Path, synchronous: str) -> sqlite3.Connection:
    """Open the connection of the writer thread, and make the file. Several processes may do so at once.

    Raises sqlite3.Error.
    """
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)  # the writer has its own wait
    try:
        _use_wal(connection)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see wal_checkpoint.py
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX // 4}")
        connection.execute("PRAGMA secure_delete = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def open_reading(path: Path) -> sqlite3.Connection:
    """Open the connection of the event loop, which cannot write. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=_READ_BUSY_S)
    connection.execute("PRAGMA query_only = ON")
    return connection


def open_checkpointing(path: Path) -> sqlite3.Connection:
    """Open the connection of the checkpointer. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    return connection


def is_mostly_free(connection: sqlite3.Connection) -> bool:
    """Return whether more than a quarter of the file is free, and the file can shrink.

    A file made by a version without `auto_vacuum` cannot.
    """
    pages, free, vacuum = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "auto_vacuum")
    )
    return bool(vacuum) and free * FREE_SHARE_MAX > pages


def shrink(connection: sqlite3.Connection) -> None:
    """Shorten the file by some of its free pages."""
    connection.execute(f"PRAGMA incremental_vacuum({_PAGES_A_STEP})").fetchall()


def restart_wal(connection: sqlite3.Connection) -> None:
    """Move all of the write-ahead log into the file and restart it, unless a reader delays that for long."""
    connection.execute(f"PRAGMA busy_timeout = {_RESTART_BUSY_MS}")
    try:
        connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    finally:
        connection.execute("PRAGMA busy_timeout = 0")


def _use_wal(connection: sqlite3.Connection) -> None:
    deadline = time.monotonic() + _OPEN_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # takes effect in a file that has no tables yet
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # SQLite does not wait here: two processes that switch the mode would deadlock.
            if not is_busy(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            break
    if mode != "wal":
        raise sqlite3.OperationalError(f"no write-ahead log on this file system (journal mode {mode!r})")
