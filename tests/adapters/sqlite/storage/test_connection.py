"""The settings of connections to the file."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mesh.adapters.sqlite.storage.connection import (
    WAL_BYTES_MAX,
    open_checkpointing,
    open_reading,
    open_writing,
    restart_wal,
)


def pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


@pytest.mark.parametrize(("word", "number"), [("NORMAL", 1), ("FULL", 2)])
def test_the_writer_uses_the_write_ahead_log_and_syncs_as_configured(path: Path, word: str, number: int) -> None:
    with closing(open_writing(path, word)) as connection:
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == number
        assert pragma(connection, "wal_autocheckpoint") == 0
        assert pragma(connection, "journal_size_limit") == WAL_BYTES_MAX // 4


def test_the_reader_cannot_write(path: Path) -> None:
    with closing(open_writing(path, "NORMAL")) as writing, closing(open_reading(path)) as reading:
        writing.execute("CREATE TABLE t (a)")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reading.execute("INSERT INTO t VALUES (1)")
        assert reading.execute("SELECT * FROM t").fetchall() == []


def test_a_restart_moves_everything_and_lets_the_log_begin_again(path: Path) -> None:
    with closing(open_writing(path, "NORMAL")) as writing, closing(open_checkpointing(path)):
        writing.execute("CREATE TABLE t (a)")
        for _ in range(5):
            writing.execute("INSERT INTO t VALUES (?)", (b"x" * 500_000,))
        before = os.stat(f"{path}-wal").st_size
        restart_wal(writing)
        assert os.stat(path).st_size > 2_500_000
        writing.execute("INSERT INTO t VALUES (1)")
        assert os.stat(f"{path}-wal").st_size <= before
        assert pragma(writing, "busy_timeout") == 0


def test_a_file_that_is_no_database_is_not_opened(path: Path) -> None:
    path.write_bytes(b"x" * 5_000)
    with pytest.raises(sqlite3.DatabaseError):
        open_writing(path, "NORMAL")
