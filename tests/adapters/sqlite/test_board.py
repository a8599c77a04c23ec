"""The board in the embedded file: the contract, and what only a file can do."""

import asyncio
import gc
import json
import multiprocessing
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import ABSENT, Board
from mesh.adapters.sqlite.board import SqliteBoard
from mesh.adapters.sqlite.storage.file import SqliteFile
from mesh.adapters.sqlite.storage.wake import Wakeup
from mesh.core.board.rules import OPS_MAX, OPS_TTL_MS
from mesh.core.errors import BoardUnavailable, Conflict
from tests.adapters.board_complete_contract import BoardCompleteContract
from tests.adapters.board_contract import BoardContract
from tests.adapters.board_kit import PATIENCE_S, OpenBoard, Wipe, take, within

TIMEOUT_MS = 10_000.0


class HandClock(SystemClock):
    """Wall time that stands still until it is set."""

    def __init__(self, at_ms: int) -> None:
        self.at_ms = at_ms

    def now_ms(self) -> int:
        return self.at_ms


class TestMirroredSqliteBoard(BoardCompleteContract):
    """The log lies elsewhere, so that the file of the board may be lost alone."""

    @pytest.fixture
    async def open_board(self, tmp_path: Path) -> AsyncIterator[OpenBoard]:
        boards: list[SqliteBoard] = []

        async def open_board() -> Board:
            board = SqliteBoard(tmp_path / f"{len(boards)}.db", timeout_ms=TIMEOUT_MS, mirrored=True)
            await board.start()
            boards.append(board)
            return board

        yield open_board
        for board in boards:
            await board.close()

    @pytest.fixture
    def wipe(self, open_board: OpenBoard) -> Wipe:
        return open_board  # the next file is an empty one


class TestSqliteBoard(BoardContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "mesh.db"

    @pytest.fixture
    async def opened(self) -> AsyncIterator[list[SqliteBoard]]:
        boards: list[SqliteBoard] = []
        yield boards
        for board in boards:
            await board.close()

    @pytest.fixture
    def open_board(self, path: Path, opened: list[SqliteBoard]) -> OpenBoard:
        async def open_board() -> Board:
            board = SqliteBoard(SqliteFile(path), timeout_ms=TIMEOUT_MS)
            await board.start()
            opened.append(board)
            return board

        return open_board

    @pytest.fixture
    def wipe(self, path: Path, opened: list[SqliteBoard], open_board: OpenBoard) -> Wipe:
        async def wipe() -> Board:
            await close_all(opened)
            for file in path.parent.glob(f"{path.name}*"):
                shutil.rmtree(file) if file.is_dir() else file.unlink()
            return await open_board()

        return wipe

    async def test_a_file_opened_again_is_the_same_incarnation(
        self, opened: list[SqliteBoard], open_board: OpenBoard
    ) -> None:
        board = await open_board()
        entry = await board.put("k", b"1")
        await close_all(opened)
        again = await open_board()
        assert await again.get("k") == entry
        assert (await again.put("k", b"2", expect=entry.version)).value == b"2"

    async def test_a_file_put_back_from_a_copy_is_another_incarnation(
        self, path: Path, opened: list[SqliteBoard], open_board: OpenBoard
    ) -> None:
        board = await open_board()
        kept = await board.put("k", b"1")
        await close_all(opened)
        copy = path.with_suffix(".copy")
        shutil.copy(path, copy)
        board = await open_board()
        lost = await board.put("k", b"2", expect=kept.version)
        await close_all(opened)
        for file in path.parent.glob(f"{path.name}-*"):
            file.unlink()
        copy.rename(path)

        restored = await open_board()
        found = await restored.get("k")
        assert found is not None
        assert found.value == b"1"
        again = await restored.put("k", b"3", expect=found.version)
        assert again.version.partition(":")[2] == lost.version.partition(":")[2]  # the counter comes by once more …
        for old in (kept, lost):
            with pytest.raises(Conflict):  # … and the old version does not pass for it
                await restored.put("k", b"4", expect=old.version)

    async def test_a_board_shares_the_file_with_others(self, path: Path) -> None:
        file = SqliteFile(path)
        await file.start(["CREATE TABLE IF NOT EXISTS elsewhere (n INTEGER)"])
        board = SqliteBoard(file)
        await board.start()
        await board.put("k", b"1")
        await board.close()
        assert file.read(lambda c: c.execute("SELECT count(*) FROM elsewhere").fetchone()) == (0,)
        await file.close()

    async def test_a_watch_that_was_left_gets_no_more_changes(self, board: Board) -> None:
        def listening() -> int:
            gc.collect()
            return sum(isinstance(thing, Wakeup) for thing in gc.get_objects())

        before = listening()
        for _ in range(3):
            async with aclosing(await board.watch()) as changes:
                entry = await board.put("k", b"1")
                assert await take(changes, 1) == [entry]
        del changes
        assert listening() == before

    async def test_the_url_names_the_file(self, path: Path) -> None:
        assert SqliteBoard(path).url == f"sqlite:{path}"

    async def test_a_board_that_is_not_open_says_so(self, path: Path) -> None:
        board = SqliteBoard(path)
        for call in (board.get("k"), board.put("k", b"1"), board.keys(), board.incarnation(), board.watch()):
            with pytest.raises(BoardUnavailable, match="not open"):
                await call

    async def test_a_path_that_cannot_hold_a_file_is_unavailable(self, tmp_path: Path) -> None:
        (tmp_path / "plain").write_bytes(b"no database, but long enough to be read as one" * 40)
        with pytest.raises(BoardUnavailable) as refused:
            await SqliteBoard(tmp_path / "plain").start()
        assert "plain" in str(refused.value)

    async def test_a_locked_file_is_unavailable_within_the_deadline_and_works_after(self, path: Path) -> None:
        board = SqliteBoard(path, timeout_ms=250)
        await board.start()
        await board.put("k", b"1")
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        async with within(250):
            with pytest.raises(BoardUnavailable) as refused:
                await board.put("k", b"2", op_id="op")
        assert "board put" in str(refused.value)
        assert str(path) in str(refused.value)
        found = await board.get("k")  # readers never wait for writers
        assert found is not None
        assert found.value == b"1"
        holder.execute("COMMIT")
        holder.close()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await board.put("k", b"2", op_id="op")
                    break
                except BoardUnavailable:
                    continue
        assert [entry.value for entry in await board.history("k")] == [b"2", b"1"]
        await board.close()

    async def test_answers_are_remembered_for_a_day_and_then_forgotten(self, path: Path) -> None:
        clock = HandClock(1_800_000_000_000)
        board = SqliteBoard(path, clock=clock, timeout_ms=TIMEOUT_MS)
        await board.start()
        first = await board.append("k", b"1", items_max=9, op_id="old")
        assert first.at_ms == clock.at_ms
        clock.at_ms += OPS_TTL_MS
        await board.append("k", b"2", items_max=9, op_id="young")
        assert await board.append("k", b"1", items_max=9, op_id="old") == first
        clock.at_ms += 1
        await board.append("k", b"3", items_max=9, op_id="sweeps")
        assert json.loads((await board.append("k", b"1", items_max=9, op_id="old")).value) == [1, 2, 3, 1]
        await board.close()

    async def test_answers_are_remembered_up_to_a_number_a_key(self, board: Board) -> None:
        async with asyncio.timeout(PATIENCE_S * 2):
            for begin in range(0, OPS_MAX + 1, 500):
                ops = range(begin, min(begin + 500, OPS_MAX + 1))
                await asyncio.gather(*(board.add("n", 1, op_id=f"op{number}") for number in ops))
        await board.add("n", 1, op_id="op1")
        assert (await board.add("n", 0)).value == OPS_MAX + 1
        await board.add("n", 1, op_id="op0")
        assert (await board.add("n", 0)).value == OPS_MAX + 2

    async def test_processes_share_one_board(self, path: Path, open_board: OpenBoard) -> None:
        board = await open_board()
        async with aclosing(await board.watch("list")) as changes:
            context = multiprocessing.get_context("spawn")
            children = [context.Process(target=_count_up, args=(path, name)) for name in ("a", "b")]
            for child in children:
                child.start()
            seen = await take(changes, 20)
            for child in children:
                await asyncio.to_thread(child.join, PATIENCE_S)
                assert child.exitcode == 0
        assert len(json.loads(seen[-1].value)) == 20
        assert {entry.by for entry in seen} == {"a", "b"}
        assert [len(json.loads(entry.value)) for entry in seen] == list(range(1, 21))
        found = await board.get("n")
        assert found is not None
        assert found.value == b"20"


async def close_all(boards: list[SqliteBoard]) -> None:
    while boards:
        await boards.pop().close()


def _count_up(path: Path, name: str) -> None:
    """Run in another process: ten increments by compare-and-set, ten appends."""

    async def run() -> None:
        board = SqliteBoard(path, timeout_ms=TIMEOUT_MS)
        await board.start()
        for number in range(10):
            while True:
                found = await board.get("n")
                value, expect = (0, ABSENT) if found is None else (json.loads(found.value), found.version)
                try:
                    await board.put("n", b"%d" % (value + 1), expect=expect)
                    break
                except Conflict:
                    continue
            await board.append("list", b"%d" % number, items_max=100, by=name)
        await board.close()

    asyncio.run(run())
