"""The simulated board keeps the contract of every board."""

import asyncio
from typing import Any

import pytest

from mesh.wire.ports import Board
from tests.sim.board import Life, SimBoard, Store
from tests.sim.world import Host, World
from tests.wire.board_complete_contract import BoardCompleteContract
from tests.wire.board_contract import BoardContract
from tests.wire.board_kit import OpenBoard, Wipe


class TestSimBoard(BoardContract, BoardCompleteContract):
    @pytest.fixture
    async def store(self) -> Store:
        loop: Any = asyncio.get_running_loop()
        return Store(World(1, loop=loop))

    @pytest.fixture
    def open_board(self, store: Store) -> OpenBoard:
        async def open_board() -> Board:
            return SimBoard(store, Host("host"))

        return open_board

    @pytest.fixture
    def wipe(self, store: Store) -> Wipe:
        async def wipe() -> Board:
            store.roll_back(Life({}, {}, {}))
            return SimBoard(store, Host("host"))

        return wipe
