"""An embedded file that is locked for a while."""

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest

from mesh.adapters.ports import Log, TopicSpec
from mesh.adapters.sqlite.storage.write_lock import hold_lock
from mesh.app.wiring import open_log
from mesh.core.errors import LogUnavailable, Unavailable
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.settings import Settings


async def opened(path: Path, append_timeout_ms: int = 10_000) -> Log:
    log = open_log(Settings(log=f"sqlite:{path}", append_timeout_ms=append_timeout_ms))
    await log.start()
    await log.create_topics([TopicSpec("t", 1)])
    return log


async def held(path: Path, log: Log, *, for_s: float, turn_s: float | None = None) -> "asyncio.Task[float]":
    """Start to lock the file, and wait until it is locked."""
    task = asyncio.get_running_loop().create_task(hold_lock(path, for_s=for_s, turn_s=turn_s))
    with sqlite3.connect(path, isolation_level=None, timeout=0) as probe:
        for _ in range(2_000):
            try:
                probe.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                break
            probe.execute("ROLLBACK")
            await asyncio.sleep(0.002)
    probe.close()
    return task


async def test_writes_wait_for_the_end_and_reads_do_not(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    log = await opened(path)
    await log.append([NewRecord("t", b"k", b"1")])
    task = await held(path, log, for_s=0.4)
    began_s = time.monotonic()
    reader = log.reader({TopicPartition("t", 0): 0})
    assert len(await reader.poll(records_max=10, wait_ms=100)) == 1
    await log.append([NewRecord("t", b"k", b"2")])
    assert time.monotonic() - began_s > 0.2
    assert await task > 0.2
    await reader.close()
    await log.close()


async def test_a_write_that_waits_too_long_is_an_error_of_the_log(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    log = await opened(path, append_timeout_ms=100)
    task = await held(path, log, for_s=10)
    with pytest.raises(LogUnavailable):
        await log.append([NewRecord("t", b"k", b"2")])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await log.append([NewRecord("t", b"k", b"2")])
    await log.close()


async def test_a_slow_file_lets_writes_through_between_its_turns(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    log = await opened(path)
    task = await held(path, log, for_s=5, turn_s=0.1)
    for _ in range(3):
        await log.append([NewRecord("t", b"k", b"2")])
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    await log.close()


async def test_what_is_no_database_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database at all, but long enough to be told apart" * 30)
    with pytest.raises(Unavailable):
        await hold_lock(tmp_path / "x.db", for_s=0.5)
