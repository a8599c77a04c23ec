"""The shared file: writing, reading, waking, and the effect of a bad disk and of other processes."""

import asyncio
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.sqlite import SqliteFile
from mesh.core.errors import BoardUnavailable, ConfigInvalid, LogUnavailable
from tests.adapters.log_kit import until
from tests.adapters.loop_kit import stand_still
from tests.adapters.sqlite.conftest import OpenFile

SCHEMA = ("CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b)",)


@pytest.fixture
async def file(open_file: OpenFile) -> SqliteFile:
    file = await open_file()
    await file.start(SCHEMA)
    return file


@pytest.fixture
async def lock(file: SqliteFile, path: Path) -> AsyncIterator[sqlite3.Connection]:
    """A foreign connection that holds the write lock."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    connection.close()


def insert(value: object) -> Any:
    return lambda connection: connection.execute("INSERT INTO t (b) VALUES (?)", (value,)).lastrowid


def held(file: SqliteFile) -> list[object]:
    return file.read(lambda connection: [row[0] for row in connection.execute("SELECT b FROM t ORDER BY a")])


# ------------------------------------------------------------------------------------------------------- writing


async def test_a_write_is_visible_to_all_when_it_returns(file: SqliteFile, open_file: OpenFile) -> None:
    other = await open_file()
    assert await file.write(insert("x")) == 1
    assert held(file) == held(other) == ["x"]


async def test_writes_happen_in_the_order_of_their_calls(file: SqliteFile) -> None:
    await asyncio.gather(*(file.write(insert(number)) for number in range(600)))
    assert held(file) == list(range(600))


async def test_a_job_that_fails_leaves_no_trace_in_the_others(file: SqliteFile) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        insert("half")(connection)
        raise ValueError("no")

    def refuse(_: sqlite3.Connection) -> None:
        raise KeyError("before writing")

    jobs: list[Any] = [insert(1), fail, insert(2), refuse, lambda c: c.execute("SELECT nothing"), insert(3)]
    answers = await asyncio.gather(*(file.write(job) for job in jobs), return_exceptions=True)
    assert [type(answer) for answer in answers] == [int, ValueError, int, KeyError, LogUnavailable, int]
    assert held(file) == [1, 2, 3]


async def test_users_share_the_file_and_the_last_one_closes_it(path: Path) -> None:
    file = SqliteFile(path)
    await asyncio.gather(file.start(SCHEMA), file.start(SCHEMA))
    await file.close()
    await file.write(insert(1))
    await file.close()
    with pytest.raises(LogUnavailable, match="not open"):
        await file.write(insert(2))
    with pytest.raises(LogUnavailable, match="not open"):
        held(file)
    await file.close()
    await file.start()
    assert held(file) == [1]
    await file.close()
    assert sorted(os.listdir(path.parent)) == ["mesh.db", "mesh.db.wake"]
    assert os.listdir(f"{path}.wake") == []


async def test_what_waits_is_written_before_the_file_closes(path: Path) -> None:
    file = SqliteFile(path)
    await file.start(SCHEMA)
    waiting = [file.write(insert(number)) for number in range(20)]
    await file.close()
    assert [await answer for answer in waiting] == list(range(1, 21))


# -------------------------------------------------------------------------------------------------- in the way


async def test_a_locked_file_ends_a_write_at_its_deadline(
    file: SqliteFile, path: Path, lock: sqlite3.Connection
) -> None:
    begun = time.monotonic()
    with pytest.raises(LogUnavailable) as caught:
        await file.write(insert(1), operation="append", timeout_ms=150)
    assert 0.14 < time.monotonic() - begun < 5
    for words in ("append", str(path), "150 ms"):
        assert words in str(caught.value)
    with pytest.raises(BoardUnavailable, match="put"):
        await file.write(insert(2), operation="put", timeout_ms=50, kind=BoardUnavailable)
    assert held(file) == []
    lock.execute("ROLLBACK")
    await file.write(insert(3))
    assert held(file) == [3]


async def test_a_write_waits_for_a_lock_that_is_released_in_time(file: SqliteFile, lock: sqlite3.Connection) -> None:
    waiting = asyncio.ensure_future(file.write(insert(1)))
    await asyncio.sleep(0.05)
    lock.execute("ROLLBACK")
    assert await waiting == 1


async def test_a_write_given_up_by_its_caller_does_not_happen(file: SqliteFile, lock: sqlite3.Connection) -> None:
    waiting = asyncio.ensure_future(file.write(insert(1)))
    await asyncio.sleep(0.02)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    lock.execute("ROLLBACK")
    await file.write(insert(2))
    assert held(file) == [2]


async def test_a_process_that_stood_still_beyond_a_deadline_writes_before_it_gives_up(file: SqliteFile) -> None:
    begun = threading.Event()

    def stall(_: sqlite3.Connection) -> None:
        begun.set()
        time.sleep(0.3)

    stalled = file.write(stall)
    assert begun.wait(10)
    late = file.write(insert(1), timeout_ms=100)
    # The loop, too, stands still: the thread comes to the second write when its deadline has passed.
    stand_still(0.4)
    await stalled
    await late
    assert held(file) == [1]


async def test_closing_returns_although_the_file_is_locked(path: Path) -> None:
    file = SqliteFile(path)
    await file.start(SCHEMA)
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("BEGIN IMMEDIATE")
        waiting = file.write(insert(1), timeout_ms=100)
        async with asyncio.timeout(12):
            await file.close()
        with pytest.raises(LogUnavailable, match="100 ms"):
            await waiting
        connection.execute("ROLLBACK")
    connection.close()


async def test_a_full_disk_is_said_and_survived(file: SqliteFile) -> None:
    def limit(pages: int) -> Any:
        return lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()

    await file.write(limit(20))
    await file.write(insert("small"))
    with pytest.raises(LogUnavailable, match="the disk is full") as caught:
        await file.write(insert(b"x" * 200_000), operation="append")
    assert str(file.path) in str(caught.value)
    await file.write(limit(1_000_000))
    await file.write(insert("later"))
    assert held(file) == ["small", "later"]


def damage(path: Path) -> None:
    """Spoil all but the first page."""
    content = path.read_bytes()
    path.write_bytes(content[:4_096] + b"\xee" * (len(content) - 4_096))


@pytest.fixture
def diary(path: Path) -> str:
    path.write_bytes(b"Dear diary, today " * 500)
    return str(path)


async def test_a_file_that_is_no_database_is_refused(path: Path, diary: str) -> None:
    with pytest.raises(LogUnavailable, match="no SQLite database") as caught:
        await SqliteFile(path).start()
    assert diary in str(caught.value)
    assert os.stat(path).st_size == 9_000


async def test_a_damaged_file_is_said_to_be_damaged(path: Path) -> None:
    file = SqliteFile(path)
    await file.start(SCHEMA)
    await asyncio.gather(*(file.write(insert(os.urandom(2_000))) for _ in range(100)))
    await file.close()
    damage(path)
    await file.start()
    with pytest.raises(LogUnavailable, match="damaged"):
        held(file)
    with pytest.raises(LogUnavailable, match="damaged"):
        await file.write(insert(1))
    await file.close()


async def test_a_directory_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(LogUnavailable, match="open failed"):
        await SqliteFile(tmp_path / "plain" / "mesh.db").start()
    (tmp_path / "directory").mkdir()
    with pytest.raises(LogUnavailable, match="cannot be opened"):
        await SqliteFile(tmp_path / "directory").start()


async def test_a_file_of_a_later_version_is_refused(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    file = SqliteFile(path)
    with pytest.raises(ConfigInvalid, match="format 999"):
        await file.start()
    with pytest.raises(LogUnavailable, match="not open"):
        await file.write(insert(1))


async def test_directories_on_the_way_are_made(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "a" / "b" / "mesh.db")
    await file.start()
    await file.close()
    assert (tmp_path / "a" / "b" / "mesh.db").exists()


# ------------------------------------------------------------------------------------------------------- waking


async def test_a_commit_wakes_the_listeners_of_its_channels_in_all_processes(
    file: SqliteFile, open_file: OpenFile
) -> None:
    other = await open_file()
    own, theirs, all_of_it, deaf = file.subscribe([4]), other.subscribe([4, 5]), other.subscribe(), other.subscribe([6])
    await file.write(insert(1), wakes=(4,))
    for wakeup in (own, theirs, all_of_it):
        assert await wakeup.wait(5_000)
        wakeup.clear()
    # A write without channels wakes no subscriber; a wake-up that is sent later and does come shows that it did not.
    await file.write(insert(2), wakes=())
    await file.write(insert(3), wakes=(5,))
    assert await theirs.wait(5_000)
    if not theirs.everything:  # else the safety poll came between
        assert theirs.fired == {5}
        assert not deaf.is_set()


async def test_the_default_channel_is_the_boards(file: SqliteFile) -> None:
    wakeup = file.subscribe([0])
    await file.write(insert(1))
    assert wakeup.is_set()


async def test_a_job_may_say_in_the_end_whom_it_wakes(file: SqliteFile) -> None:
    wakeup = file.subscribe([9])
    wakes: list[int] = []

    def job(connection: sqlite3.Connection) -> None:
        insert(1)(connection)
        wakes.append(9)

    await file.write(job, wakes=wakes)
    assert wakeup.is_set()


async def test_a_failed_job_wakes_no_subscriber(file: SqliteFile) -> None:
    wakeup = file.subscribe([4])

    def fail(_: sqlite3.Connection) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await file.write(fail, wakes=(4,))
    assert not wakeup.is_set()


async def test_a_lost_wake_up_is_made_up_for(file: SqliteFile, open_file: OpenFile, path: Path) -> None:
    other = await open_file()
    wakeup = other.subscribe([4])
    shutil.rmtree(f"{path}.wake")
    begun = time.monotonic()
    await file.write(insert(1), wakes=(4,))
    assert await wakeup.wait(5_000)
    assert wakeup.everything
    assert time.monotonic() - begun < 4  # of the 5 s that it would have waited


async def test_a_closed_wakeup_gets_no_event(file: SqliteFile) -> None:
    wakeup, other = file.subscribe([4]), file.subscribe([4])
    wakeup.close()
    wakeup.close()
    await file.write(insert(1), wakes=(4,))
    assert other.is_set()
    assert not wakeup.is_set()


async def test_closing_the_file_wakes_all_subscribers(path: Path) -> None:
    file = SqliteFile(path)
    await file.start()
    waiting = asyncio.ensure_future(file.subscribe([4]).wait())
    await asyncio.sleep(0)
    await file.close()
    assert await waiting


async def test_the_write_ahead_log_does_not_grow_without_end(
    file: SqliteFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.adapters.sqlite.storage.file.WAL_BYTES_MAX", 1_000_000)
    monkeypatch.setattr("mesh.adapters.sqlite.storage.file._WAL_CHECK_S", 0.0)
    for _ in range(40):
        await file.write(insert(os.urandom(200_000)))
    async with asyncio.timeout(60):
        while os.stat(f"{path}-wal").st_size >= 4_000_000:  # the machine may be too busy to keep up
            await file.write(insert(b""))
    await until(lambda: os.stat(path).st_size > 4_000_000, "moved into the file")


# ---------------------------------------------------------------------------------------------- who may read the data


def modes(folder: Path) -> dict[str, str]:
    """Names below a folder, and its own, with what others and the owner may do with them."""
    return {path.name: f"{stat.S_IMODE(path.stat().st_mode):04o}" for path in (folder, *folder.rglob("*"))}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_no_other_user_may_read_the_data_whatever_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        file = SqliteFile(tmp_path / ".mesh" / "mesh.db")
        await file.start(SCHEMA)
        await file.write(insert(1))
        found = modes(tmp_path / ".mesh")
        pipe = file.opener
        await file.close()
    finally:
        os.umask(before)
    assert found == {
        **dict.fromkeys((".mesh", "mesh.db.wake"), "0700"),
        **dict.fromkeys(("mesh.db", "mesh.db-wal", "mesh.db-shm", pipe), "0600"),
    }


async def test_data_that_others_could_read_is_closed_off_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / ".mesh"
    for _ in range(2):
        file = SqliteFile(folder / "mesh.db")
        await file.start(SCHEMA)
        await file.write(insert(_))
        if not _:
            for path in (folder, folder / "mesh.db", folder / "mesh.db.wake"):
                path.chmod(0o755 if path.is_dir() else 0o644)
        await file.close()
    assert set(modes(folder).values()) == {"0700", "0600"}
    (line,) = [record.getMessage() for record in caplog.records if "other users" in record.getMessage()]
    assert all(word in line for word in ("mesh.db (0644)", "mesh.db.wake (0755)", ".mesh (0755)"))


async def test_a_folder_of_another_name_is_not_ours_to_close(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    file = SqliteFile(tmp_path / "mesh.db")
    await file.start(SCHEMA)
    await file.close()
    assert modes(tmp_path)[tmp_path.name] == "0755"
