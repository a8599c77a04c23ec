"""The simulated board keeps the contract of every board."""

import asyncio
from typing import Any

import pytest

from mesh.adapters.ports import Board
from tests.adapters.board_complete_contract import BoardCompleteContract
from tests.adapters.board_contract import BoardContract
from tests.adapters.board_kit import OpenBoard, Wipe
from tests.sim.board import Life, SimBoard, Store
from tests.sim.world import Host, World


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
