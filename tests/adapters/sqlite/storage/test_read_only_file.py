"""A file that is opened read-only: nothing changes, with and without a mesh that writes it."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.adapters.ports import Bounds, TopicSpec
from mesh.adapters.sqlite import SqliteLog, SqliteReadLog
from mesh.adapters.sqlite.storage.read_only_file import ReadOnlyFile
from mesh.core.errors import ConfigInvalid, LogUnavailable, NotFound
from mesh.core.protocol.record import NewRecord
from tests.read_only import bound_by_modes, read_only, stamps

READ = """
import asyncio, sys
from mesh.adapters.sqlite import SqliteReadLog

async def main():
    log = SqliteReadLog(sys.argv[1])
    await log.start()
    print((await log.bounds("t"))[0].end)
    await log.close()

asyncio.run(main())
"""


async def write(path: Path, count: int = 1) -> None:
    log = SqliteLog(path)
    await log.start()
    await log.create_topics([TopicSpec("t", 1)])
    await log.append([NewRecord("t", b"k", b"%d" % n, (), 0) for n in range(count)])
    await log.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def read_as_other(path: Path) -> subprocess.CompletedProcess[str]:
    """Read the file in a process that may only read it."""
    with read_only(path.parent):
        return subprocess.run(
            [sys.executable, "-c", READ, str(path)],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=bound_by_modes,
        )


async def test_reading_leaves_every_byte_and_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await write(path, 3)
    before, there = contents(tmp_path), names(tmp_path)
    log = SqliteReadLog(path)
    await log.start()
    assert await log.bounds("t") == {0: Bounds(0, 3)}
    assert names(tmp_path) == there
    await log.close()
    assert contents(tmp_path) == before
    assert "mesh.db-wal" not in there


async def test_nothing_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await write(path)
    for live in (False, True):
        writer = SqliteLog(path)
        if live:
            await writer.start()
        file = ReadOnlyFile(path)
        await file.start()
        with pytest.raises(LogUnavailable, match="cannot be written"):
            file.read(lambda connection: connection.execute("DELETE FROM batches"))
        await file.close()
        if live:
            await writer.close()


async def test_a_read_only_user_reads_a_file_at_rest(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    await write(folder / "mesh.db", 3)
    done = read_as_other(folder / "mesh.db")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


async def test_a_read_only_user_reads_a_file_that_a_mesh_writes(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    log = SqliteLog(folder / "mesh.db")
    await log.start()
    await log.create_topics([TopicSpec("t", 1)])
    await log.append([NewRecord("t", b"k", b"%d" % n, (), 0) for n in range(5)])
    done = read_as_other(folder / "mesh.db")
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
    await log.append([NewRecord("t", b"k", b"6", (), 0)])
    await log.close()


async def test_a_read_only_user_reads_a_file_whose_mesh_was_killed(tmp_path: Path) -> None:
    folder, copy = tmp_path / "live", tmp_path / "killed"
    folder.mkdir()
    log = SqliteLog(folder / "mesh.db")
    await log.start()
    await log.create_topics([TopicSpec("t", 1)])
    await log.append([NewRecord("t", b"k", b"%d" % n, (), 0) for n in range(4)])
    copy.mkdir()
    for name in ("mesh.db", "mesh.db-wal", "mesh.db-shm"):
        (copy / name).write_bytes((folder / name).read_bytes())
    await log.close()
    done = read_as_other(copy / "mesh.db")
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr


@pytest.mark.parametrize("with_index", [True, False])
async def test_the_owner_of_a_file_whose_mesh_was_killed_changes_none_of_its_three_files(
    tmp_path: Path, with_index: bool
) -> None:
    folder, copy = tmp_path / "live", tmp_path / "killed"
    folder.mkdir()
    copy.mkdir()
    await write(folder / "mesh.db", 3)
    writer = SqliteLog(folder / "mesh.db")
    await writer.start()
    await writer.append([NewRecord("t", b"k", b"4", (), 0)])
    for name in ("mesh.db", "mesh.db-wal", "mesh.db-shm")[: 3 if with_index else 2]:
        (copy / name).write_bytes((folder / name).read_bytes())
    await writer.close()
    before = stamps(copy)
    log = SqliteReadLog(copy / "mesh.db")
    await log.start()
    assert (await log.bounds("t"))[0].end == 4
    await log.close()
    after = stamps(copy)
    if not with_index:
        del before[str(copy)], after[str(copy)], after[str(copy / "mesh.db-shm")]
    assert after == before


async def test_a_mesh_that_starts_later_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await write(path, 2)
    log = SqliteReadLog(path)
    await log.start()
    assert (await log.bounds("t"))[0].end == 2
    await write(path, 3)  # opened, written and closed meanwhile
    assert (await log.bounds("t"))[0].end == 5
    writer = SqliteLog(path)
    await writer.start()
    await writer.append([NewRecord("t", b"k", b"x", (), 0)])
    assert (await log.bounds("t"))[0].end == 6
    await writer.close()
    await log.close()


async def test_a_file_that_changes_below_a_read_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await write(path)
    file = ReadOnlyFile(path)
    await file.start()
    with pytest.raises(LogUnavailable, match="changed while it was read"):
        file.read(lambda connection: os.utime(path, (1, 1)))
    await file.close()


async def test_a_wait_ends_soon_after_a_commit_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "mesh.db"
    await write(path)
    writer = SqliteLog(path)
    await writer.start()
    file = ReadOnlyFile(path)
    await file.start()
    wakeup = file.subscribe()
    while await wakeup.wait(500):
        wakeup.clear()
    await writer.append([NewRecord("t", b"k", b"x", (), 0)])
    assert await wakeup.wait(10_000)
    wakeup.close()
    await file.close()
    await writer.close()


async def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        await ReadOnlyFile(tmp_path / "none.db").start()
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "text.db").write_text("no database at all, " * 100)
    with pytest.raises(LogUnavailable, match="no SQLite database"):
        await ReadOnlyFile(tmp_path / "text.db").start()
    for name, version, kind in (("empty.db", 0, NotFound), ("later.db", 99, ConfigInvalid)):
        connection = sqlite3.connect(tmp_path / name)
        connection.execute("CREATE TABLE t (a)")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.close()
        with pytest.raises(kind):
            await ReadOnlyFile(tmp_path / name).start()
