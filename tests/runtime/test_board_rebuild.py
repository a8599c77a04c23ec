"""A board that lost what it held is filled again from the log, and nothing newer is touched."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Board, Entry, Log
from mesh.adapters.sqlite import SqliteBoard, SqliteLog
from mesh.app.wiring import topic_specs
from mesh.context import COMPLETE_WAIT_MS
from mesh.core.board.changelog import MISSING, NEWER, SAME, BoardChange, BoardRestart, restart_record
from mesh.core.errors import BoardUnavailable, NotFound
from mesh.runtime import board_maintenance
from mesh.runtime.board_changelog import mirror_changes, read_mirror
from mesh.runtime.board_maintenance import RESTORE_LEASE, BoardMaintainer
from mesh.runtime.board_rebuild import AT_ONCE, Rebuild
from tests.builders import topology

ECHO = topology(echo="ask -> answer")
CLOCK = SystemClock()
NewBoard = Callable[[], Awaitable[SqliteBoard]]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(tmp_path / "mesh.db")
    await log.start()
    await log.create_topics(topic_specs(ECHO))
    yield log
    await log.close()


@pytest.fixture
async def new_board(tmp_path: Path) -> AsyncIterator[NewBoard]:
    boards: list[SqliteBoard] = []

    async def new_board() -> SqliteBoard:
        """Another one, empty: the store after it lost everything."""
        boards.append(SqliteBoard(tmp_path / f"board{len(boards)}.db", timeout_ms=10_000))
        await boards[-1].start()
        return boards[-1]

    yield new_board
    for board in boards:
        await board.close()


async def put(log: Log, board: Board, key: str, value: bytes) -> Entry:
    """As an agent does."""
    entry = await board.put(key, value, by="pricing/t1")
    await mirror_changes(log, ECHO, [BoardChange(key, value, entry.version, entry.by, "", entry.at_ms)])
    return entry


async def rebuilt(log: Log, board: Board, pattern: str = "*") -> tuple[int, int]:
    """The numbers of values written and left alone."""
    rebuild = Rebuild(log, board, ECHO, CLOCK)
    plan = await rebuild.plan(pattern)
    async with aclosing(rebuild.write(plan.missing)) as done:
        entries = [written.entry async for written in done]
    return len(entries) - entries.count(None), entries.count(None)


async def values(board: Board) -> dict[str, bytes]:
    found = [await board.get(key) for key in await board.keys()]
    return {entry.key: entry.value for entry in found if entry is not None}


async def test_an_empty_board_is_filled_with_the_newest_values_and_a_second_time_writes_nothing(
    log: Log, new_board: NewBoard
) -> None:
    old, new = await new_board(), await new_board()
    for n in range(5 * AT_ONCE):
        await put(log, old, f"k/{n % 40}", b"%d" % n)
    plan = await Rebuild(log, new, ECHO, CLOCK).plan()
    assert (len(plan.missing), plan.count(SAME), plan.count(NEWER)) == (40, 0, 0)
    assert await values(new) == {}, "a plan writes nothing"
    assert await rebuilt(log, new) == (40, 0)
    assert await values(new) == await values(old)
    entry = await new.get("k/7")
    assert entry is not None
    assert entry.by == "rebuild/pricing/t1"
    again = await Rebuild(log, new, ECHO, CLOCK).plan()
    assert (len(again.missing), again.count(SAME)) == (0, 40)


async def test_what_was_brought_back_is_mirrored_and_survives_the_next_loss(log: Log, new_board: NewBoard) -> None:
    old, new, newest = [await new_board() for _ in range(3)]
    await put(log, old, "k", b"1")
    await BoardMaintainer(log, new, ECHO, CLOCK).look()
    await rebuilt(log, new)
    held = (await read_mirror(log, CLOCK, ECHO)).newest()["k"].change
    entry = await new.get("k")
    assert entry is not None
    assert (held.version, held.by) == (entry.version, "rebuild/pricing/t1")
    await put(log, new, "k", b"2")
    assert await rebuilt(log, newest) == (1, 0)
    again = await newest.get("k")
    assert again is not None
    assert (again.value, again.by) == (b"2", "rebuild/pricing/t1")


async def test_what_was_written_or_deleted_since_is_left_alone(log: Log, new_board: NewBoard) -> None:
    old, new = await new_board(), await new_board()
    for key in ("lost", "written", "deleted", "same"):
        await put(log, old, key, b"1")
    await new.put("written", b"9")
    await new.put("deleted", b"9")
    await new.delete("deleted")
    await new.put("same", b"1")
    plan = await Rebuild(log, new, ECHO, CLOCK).plan()
    assert {step.change.key: step.verdict for step in plan.steps} == {
        "deleted": NEWER,
        "lost": MISSING,
        "same": SAME,
        "written": NEWER,
    }
    await rebuilt(log, new)
    assert await values(new) == {"lost": b"1", "written": b"9", "same": b"1"}


async def test_a_store_that_went_back_in_time_is_brought_forward(log: Log, new_board: NewBoard) -> None:
    """As after a failover: an older value stands there, under a version of the life in which it was written."""
    board = await new_board()
    first = await put(log, board, "k", b"1")
    new_incarnation, _, counter = first.version.partition(":")
    await mirror_changes(log, ECHO, [BoardChange("k", b"2", f"{new_incarnation}:{int(counter) + 5}", "pricing/t2")])
    assert await rebuilt(log, board) == (1, 0)
    assert await values(board) == {"k": b"2"}
    assert len((await read_mirror(log, CLOCK, ECHO)).newest()) == 1


async def test_only_keys_that_match_are_looked_at(log: Log, new_board: NewBoard) -> None:
    old, new = await new_board(), await new_board()
    for key in ("a/1", "a/2", "b/1"):
        await put(log, old, key, b"1")
    assert await rebuilt(log, new, "a/*") == (2, 0)
    assert await new.keys() == ["a/1", "a/2"]


async def test_a_write_between_plan_and_rebuild_is_not_overwritten(log: Log, new_board: NewBoard) -> None:
    old, new = await new_board(), await new_board()
    for key in ("taken", "gone", "free"):
        await put(log, old, key, b"1")
    rebuild = Rebuild(log, new, ECHO, CLOCK)
    plan = await rebuild.plan()
    await new.put("taken", b"9")
    await new.put("gone", b"9")
    await new.delete("gone")
    async with aclosing(rebuild.write(plan.missing)) as done:
        told = {written.step.change.key: written.entry is not None async for written in done}
    assert told == {"taken": False, "gone": False, "free": True}
    assert await values(new) == {"taken": b"9", "free": b"1"}


async def test_a_write_that_meets_another_one_is_left_alone(log: Log, new_board: NewBoard, tmp_path: Path) -> None:
    class Contended(SqliteBoard):
        """Another process writes between the look and the put."""

        async def put(self, key: str, value: bytes, *, expect: str = "*", by: str = "", op_id: str = "") -> Entry:
            if op_id:
                await super().put(key, b"9", by="another")
            return await super().put(key, value, expect=expect, by=by, op_id=op_id)

    await put(log, await new_board(), "k", b"1")
    board = Contended(tmp_path / "contended.db", timeout_ms=10_000)
    await board.start()
    try:
        assert await rebuilt(log, board) == (0, 1)
        assert await values(board) == {"k": b"9"}
    finally:
        await board.close()


async def test_interrupted_it_is_finished_by_another_one(log: Log, new_board: NewBoard, tmp_path: Path) -> None:
    class Failing(SqliteBoard):
        left = 2 * AT_ONCE + 3

        async def put(self, key: str, value: bytes, *, expect: str = "*", by: str = "", op_id: str = "") -> Entry:
            if self.left == 0:
                raise BoardUnavailable("gone", where="test")
            self.left -= 1
            return await super().put(key, value, expect=expect, by=by, op_id=op_id)

    old = await new_board()
    for n in range(4 * AT_ONCE):
        await put(log, old, f"k{n}", b"%d" % n)
    board = Failing(tmp_path / "failing.db", timeout_ms=10_000)
    await board.start()
    try:
        with pytest.raises(BoardUnavailable):
            await rebuilt(log, board)
        assert len(await board.keys()) == 2 * AT_ONCE + 3
        board.left = 1_000
        assert await rebuilt(log, board) == (2 * AT_ONCE - 3, 0)
        assert await values(board) == await values(old)
        incarnations = {
            h.change.version.partition(":")[0] for h in (await read_mirror(log, CLOCK, ECHO)).newest().values()
        }
        assert incarnations == {await board.incarnation()}
    finally:
        await board.close()


async def test_without_the_topic_it_says_so(tmp_path: Path, new_board: NewBoard) -> None:
    bare = SqliteLog(tmp_path / "bare.db")
    await bare.start()
    with pytest.raises(NotFound):
        await Rebuild(bare, await new_board(), ECHO, CLOCK).plan()
    await bare.close()


async def test_it_reports_its_progress_and_restarts(log: Log, new_board: NewBoard) -> None:
    board, told = await new_board(), list[tuple[int, int]]()
    for n in range(AT_ONCE + 1):
        await put(log, board, f"k{n}", b"1")
    await log.append([restart_record(BoardRestart("a", "b"), ECHO)])
    plan = await Rebuild(log, board, ECHO, CLOCK).plan(on_progress=lambda done, of: told.append((done, of)))
    assert told == [(AT_ONCE, AT_ONCE + 1), (AT_ONCE + 1, AT_ONCE + 1)]
    assert [(r.old, r.new) for r in plan.restarts] == [("a", "b")]


async def test_an_incomplete_board_is_filled_and_marked_complete(log: Log, new_board: NewBoard, tmp_path: Path) -> None:
    old = await new_board()
    for n in range(3):
        await put(log, old, f"k/{n}", b"%d" % n)
    new = SqliteBoard(tmp_path / "new.db", timeout_ms=10_000, mirrored=True)
    await new.start()
    try:
        maintainer, other = (BoardMaintainer(log, new, ECHO, CLOCK) for _ in range(2))
        await maintainer.look()
        assert await maintainer.complete() == 3
        assert await values(new) == await values(old)
        assert (await new.completeness()).complete
        assert await maintainer.complete() is None
        await other.look()
        assert await other.complete() is None, "another process finds it complete"
    finally:
        await new.close()


async def test_one_process_at_a_time_puts_values_back(log: Log, new_board: NewBoard, tmp_path: Path) -> None:
    await put(log, await new_board(), "k", b"1")
    new = SqliteBoard(tmp_path / "new.db", timeout_ms=10_000, mirrored=True)
    await new.start()
    try:
        maintainers = [BoardMaintainer(log, new, ECHO, CLOCK) for _ in range(3)]
        for maintainer in maintainers:
            await maintainer.look()
        written = await asyncio.gather(*(maintainer.complete() for maintainer in maintainers))
        assert sorted(written, key=lambda count: count or 0) == [None, None, 1]
    finally:
        await new.close()


async def test_the_death_of_the_process_that_puts_values_back_fails_no_call(
    log: Log, new_board: NewBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits_ms = board_maintenance.RESTORE_LEASE_MS + board_maintenance.LOOK_EVERY_MS + board_maintenance.SETTLE_MS
    assert waits_ms < COMPLETE_WAIT_MS, "an agent's call outlasts the lease of a dead process"
    monkeypatch.setattr(board_maintenance, "RESTORE_LEASE_MS", 300)
    await put(log, await new_board(), "k", b"1")
    new = SqliteBoard(tmp_path / "new.db", timeout_ms=10_000, mirrored=True)
    await new.start()
    try:
        dead, other = (BoardMaintainer(log, new, ECHO, CLOCK) for _ in range(2))
        await dead.look()
        await other.look()
        assert await new.lease(RESTORE_LEASE, dead._holder, ttl_ms=board_maintenance.RESTORE_LEASE_MS) == dead._holder
        async with asyncio.timeout(10):
            while (written := await other.complete()) is None:
                await CLOCK.sleep_ms(20)
        assert written == 1
    finally:
        await new.close()
