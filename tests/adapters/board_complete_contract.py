"""The contract of every mirrored Board until its lost values are back. Fixtures as in `board_contract`."""

from collections.abc import Awaitable, Callable

import pytest

from mesh.adapters.ports import ABSENT, Board
from mesh.core.board.rules import RESTORE_OP
from mesh.core.errors import BoardIncomplete
from tests.adapters.board_kit import OpenBoard, Wipe

DEPENDENT: dict[str, Callable[[Board], Awaitable[object]]] = {
    "add": lambda board: board.add("count", 1, op_id="op"),
    "append": lambda board: board.append("list", b"1", items_max=5, op_id="op"),
    "put where nothing stands": lambda board: board.put("value", b"1", expect=ABSENT, op_id="op"),
}
"""Writes whose effect depends on the value that stands."""


class BoardCompleteContract:
    @pytest.mark.parametrize("write", DEPENDENT.values(), ids=list(DEPENDENT))
    async def test_a_write_that_depends_on_a_lost_value_is_refused_until_the_store_is_complete(
        self, write: Callable[[Board], Awaitable[object]], open_board: OpenBoard, wipe: Wipe
    ) -> None:
        board = await open_board()
        assert await board.mark_complete(await board.incarnation())
        await write(board)
        board = await wipe()
        assert not (await board.completeness()).complete
        with pytest.raises(BoardIncomplete) as refused:
            await write(board)
        assert "may have been lost" in str(refused.value)
        assert await board.keys() == []
        assert await board.mark_complete(await board.incarnation())
        assert (await board.completeness()).complete
        await write(board)
        assert len(await board.keys()) == 1

    async def test_reads_and_writes_that_depend_on_nothing_go_on(self, open_board: OpenBoard) -> None:
        board = await open_board()
        assert await board.get("k") is None
        assert (await board.put("k", b"1")).value == b"1"
        entry = await board.put("lost", b"7", expect=ABSENT, op_id=f"{RESTORE_OP}aa:1")
        assert await board.put("lost", b"8", expect=entry.version)

    async def test_another_incarnation_is_not_marked(self, open_board: OpenBoard, wipe: Wipe) -> None:
        before = await (await open_board()).incarnation()
        board = await wipe()
        assert not await board.mark_complete(before)
        assert not (await board.completeness()).complete
