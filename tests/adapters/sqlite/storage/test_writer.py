"""Group commit: what goes into one transaction, and what does not."""

import asyncio
import sqlite3
import threading
import time
from collections import Counter
from typing import Any

import pytest

from mesh.adapters.sqlite import SqliteFile
from mesh.adapters.sqlite.storage.writer import WriterThread
from mesh.core.errors import LogUnavailable
from tests.adapters.log_kit import until
from tests.adapters.sqlite.conftest import OpenFile

SCHEMA = ("CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b)",)


async def opened(open_file: OpenFile) -> tuple[SqliteFile, Counter[str]]:
    """A file, and a count of what its writing connection does from now on."""
    file = await open_file()
    await file.start(SCHEMA)
    done: Counter[str] = Counter()
    await file.write(lambda c: c.set_trace_callback(lambda sql: done.update([sql.split()[0]])))
    done.clear()
    return file, done


def insert(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO t (b) VALUES (1)")


async def test_what_waits_together_is_committed_together(open_file: OpenFile) -> None:
    file, done = await opened(open_file)
    may_end = threading.Event()
    first = file.write(lambda _: may_end.wait(10))
    others = [file.write(insert) for _ in range(100)]
    may_end.set()
    await asyncio.gather(first, *others)
    assert done["INSERT"] == 100
    assert done["COMMIT"] <= 2, "the first one's, and that of all who waited for it"


async def test_a_transaction_that_lasts_long_begins_no_more_jobs(open_file: OpenFile) -> None:
    file, done = await opened(open_file)
    answers = [file.write(lambda _: time.sleep(0.03)) for _ in range(8)]
    answers += [file.write(insert) for _ in range(3)]
    await asyncio.gather(*answers)
    assert 3 <= done["COMMIT"] <= 9
    assert done["INSERT"] == 3


async def test_savepoints_are_paid_for_only_when_a_job_failed_after_writing(open_file: OpenFile) -> None:
    file, done = await opened(open_file)

    def fail(connection: sqlite3.Connection) -> None:
        insert(connection)
        raise ValueError("no")

    def refuse(_: sqlite3.Connection) -> None:
        raise ValueError("no")

    async def together(*jobs: Any) -> None:
        done.clear()
        first = file.write(lambda _: time.sleep(0.02))
        await asyncio.gather(first, *map(file.write, jobs), return_exceptions=True)

    await together(insert, refuse, insert)
    assert done["SAVEPOINT"] == 0
    await together(insert, fail, insert)
    assert done["SAVEPOINT"] >= 3
    assert file.read(lambda c: c.execute("SELECT count(*) FROM t").fetchone()) == (4,)


async def test_jobs_whose_deadline_passed_while_they_waited_are_left_out(open_file: OpenFile) -> None:
    file, done = await opened(open_file)
    begun, may_end = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        begun.set()
        may_end.wait(10)

    first = file.write(hold)
    assert begun.wait(10)
    with pytest.raises(LogUnavailable, match="20 ms"):
        await file.write(insert, timeout_ms=20)
    may_end.set()
    await first
    await file.write(lambda _: None)
    assert done["INSERT"] == 0


async def test_a_crash_of_the_thread_fails_every_later_write(open_file: OpenFile) -> None:
    file = await open_file()
    await file.start(SCHEMA)
    writer = file._writer
    assert writer is not None

    def broken(_: frozenset[int]) -> None:
        raise ZeroDivisionError("a bug")

    writer._committed = broken
    (first,) = await asyncio.gather(file.write(insert, timeout_ms=200), return_exceptions=True)
    assert "200 ms" in str(first)
    with pytest.raises(LogUnavailable, match=r"writer thread ended.*a bug"):
        await file.write(insert, timeout_ms=200)


async def test_a_connection_that_comes_too_late_is_closed_again() -> None:
    may_come, closed = threading.Event(), threading.Event()

    class Watched(sqlite3.Connection):
        def close(self) -> None:
            closed.set()
            super().close()

    def connect() -> sqlite3.Connection:
        may_come.wait(30)
        return sqlite3.connect(":memory:", factory=Watched)

    writer = WriterThread(connect=connect, committed=print, complete=print, tidy=print)
    with pytest.raises(TimeoutError):
        await writer.start("late", 0.05)
    may_come.set()
    await until(closed.is_set, "closed")
