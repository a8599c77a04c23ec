"""Moving what was committed from the write-ahead log into the file, beside the writing."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from mesh.adapters.sqlite.storage.connection import open_checkpointing, open_writing
from mesh.adapters.sqlite.storage.wal_checkpoint import Checkpointer
from tests.adapters.log_kit import until


async def test_commits_reach_the_file_without_waiting_for_it(path: Path) -> None:
    with closing(open_writing(path, "NORMAL")) as writing:
        checkpointer = Checkpointer(lambda: open_checkpointing(path), "checkpoint")
        writing.execute("CREATE TABLE t (a)")
        writing.execute("INSERT INTO t VALUES (?)", (b"x" * 500_000,))
        assert os.stat(path).st_size < 500_000
        checkpointer.want(urgent=True)
        await until(lambda: os.stat(path).st_size > 500_000, "a checkpoint")
        assert await checkpointer.stop(10)


async def test_commits_that_are_not_urgent_are_moved_together(path: Path) -> None:
    with closing(open_writing(path, "NORMAL")) as writing:
        checkpointer = Checkpointer(lambda: open_checkpointing(path), "checkpoint")
        writing.execute("CREATE TABLE t (a)")
        writing.execute("INSERT INTO t VALUES (?)", (b"x" * 500_000,))
        for _ in range(63):
            checkpointer.want(urgent=False)
        assert not checkpointer._wanted.is_set()
        checkpointer.want(urgent=False)
        await until(lambda: os.stat(path).st_size > 500_000, "a checkpoint")
        assert await checkpointer.stop(10)


async def test_a_checkpointer_that_cannot_work_does_no_harm_and_ends_when_stopped() -> None:
    tried = []

    def connect() -> sqlite3.Connection:
        tried.append(1)
        raise sqlite3.OperationalError("disk I/O error")

    checkpointer = Checkpointer(connect, "checkpoint")
    await until(lambda: tried, "an attempt")
    assert await checkpointer.stop(10)
