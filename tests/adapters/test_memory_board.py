"""The board in memory keeps the contract of every board for reads and writes."""

import pytest

from mesh.adapters.memory_board import BoardAtMoment, MemoryBoard
from mesh.core.board.past_values import MemoryPast, PastValue
from mesh.core.errors import Conflict
from tests.adapters.board_ops_contract import BoardOpsContract


class TestMemoryBoard(BoardOpsContract):
    @pytest.fixture
    def board(self) -> MemoryBoard:  # complete from the start
        return MemoryBoard()

    @pytest.fixture
    def open_board(self, board: MemoryBoard):  # type: ignore[no-untyped-def]  # the boards of one store are one
        async def again() -> MemoryBoard:
            return board

        return again


def past_board() -> MemoryPast:
    past = MemoryPast()
    for counter, (key, value, at_ms) in enumerate(
        [("seen", b"7", 10), ("old", b"1", 10), ("old", None, 15), ("seen", b"9", 20)]
    ):
        past.take(PastValue(key, value, f"life:{counter}", at_ms, "scorer/t0"))
    return past


class TestBoardAtMoment(BoardOpsContract):
    @pytest.fixture
    def board(self) -> BoardAtMoment:
        return BoardAtMoment(MemoryPast(), 10)

    @pytest.fixture
    def open_board(self, board: BoardAtMoment):  # type: ignore[no-untyped-def]  # the boards of one store are one
        async def again() -> BoardAtMoment:
            return board

        return again


async def test_a_board_shows_the_values_of_its_moment_and_keeps_its_writes_to_itself() -> None:
    past = past_board()
    board, later = BoardAtMoment(past, 12), BoardAtMoment(past, 20)
    found = await board.get("seen")
    assert found is not None
    assert (found.value, found.version, found.by) == (b"7", "life:0", "scorer/t0")
    assert (await board.add("seen", 1, op_id="t1:1")).value == 8
    assert (await board.add("seen", 1, op_id="t1:1")).value == 8
    assert (await later.add("seen", 1)).value == 10
    assert [entry.value for entry in await board.history("seen")] == [b"8", b"7"]
    assert [entry.value for entry in await later.history("seen", limit=2)] == [b"10", b"9"]
    assert await board.keys() == ["old", "seen"]
    assert await later.keys() == ["seen"]


async def test_a_value_of_the_past_is_compared_and_set_and_deleted_like_any_other() -> None:
    board = BoardAtMoment(past_board(), 12)
    with pytest.raises(Conflict):
        await board.put("seen", b"1", expect="")
    await board.put("seen", b"1", expect="life:0")
    assert await board.delete("old")
    assert await board.get("old") is None
    assert await board.keys() == ["seen"]
