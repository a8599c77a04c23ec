"""The board in memory keeps the contract of every board for reads and writes."""

import pytest

from mesh.testing import MemoryBoard
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
