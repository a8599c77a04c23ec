"""Shared parts of the tests of boards: fixtures, ways to wait and to measure."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mesh.adapters.ports import Board, Entry

OpenBoard = Callable[[], Awaitable[Board]]
Wipe = Callable[[], Awaitable[Board]]

MARGIN_MS = 1_000.0
PATIENCE_S = 20.0
"""Longest wait of a test for an expected event; no test waits for time to pass."""


def values(entries: Iterable[Entry]) -> list[Any]:
    return [json.loads(entry.value) for entry in entries]


async def take(changes: AsyncGenerator[Entry, None], count: int) -> list[Entry]:
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(changes) for _ in range(count)]


@asynccontextmanager
async def within(deadline_ms: float) -> AsyncIterator[None]:
    """Fail if the block ends later than a timer of `deadline_ms` on the same loop, plus a margin.

    A busy machine delays both, so it causes no failure.
    """
    loop = asyncio.get_running_loop()
    fired: list[float] = []
    timer = loop.call_later(deadline_ms / 1000, lambda: fired.append(loop.time()))
    try:
        yield
        assert not fired or (loop.time() - fired[0]) * 1000 < MARGIN_MS
    finally:
        timer.cancel()


async def put_many(board: Board, key: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S * 2):
        for number in range(count):
            await board.put(key, b"%d" % number)


async def completed(board: Board) -> Board:
    """The board, marked complete."""
    assert await board.mark_complete(await board.incarnation())
    return board


class BoardFixtures:
    """A test class gives `open_board`, and `wipe` if it inherits the whole contract."""

    @pytest.fixture
    async def board(self, open_board: OpenBoard) -> Board:
        return await completed(await open_board())
