"""A Redis of a test's own, and boards on it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from mesh.adapters.ports import Board
from mesh.adapters.redis.board import RedisBoard
from mesh.core.errors import BoardUnavailable
from tests.adapters.board_kit import PATIENCE_S
from tests.live.servers import free_port

TIMEOUT_MS = 10_000.0
"""Deadline of boards that are not tested for their deadline."""


async def redis(port: int, *words: str) -> list[bytes]:
    """Run one command past the board; the lines of the answer. Fails on an error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        parts = [word.encode() for word in words]
        writer.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))
        head = (await reader.readline()).rstrip()
        assert not head.startswith(b"-"), (words, head)
        if head == b"$-1":
            return []
        if head[:1] == b"$":
            return (await reader.readexactly(int(head[1:]) + 2)).splitlines()
        if head[:1] != b"*":
            return [head[1:]]
        found = []
        for _ in range(int(head[1:])):
            await reader.readline()
            found.append((await reader.readline()).rstrip())
        return found
    finally:
        writer.close()


class Server:
    """A Redis of our own, to be killed, stalled and started again."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port(1)
        self._directory = directory
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        assert self._process is None, "it runs already"
        self._directory.mkdir(exist_ok=True)
        arguments = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory), "--save", "")
        self._process = await asyncio.create_subprocess_exec(
            "redis-server", *arguments, *self._options, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await redis(self.port, "PING")
                    return
                except (OSError, ValueError, AssertionError):
                    await asyncio.sleep(0.005)

    async def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            await self._process.wait()
            self._process = None

    async def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()


StartServer = Callable[..., Awaitable[Server]]
BoardOn = Callable[..., RedisBoard]


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await happened():
                return
            await asyncio.sleep(0.005)


async def until_available(board: Board) -> None:
    async def answers() -> bool:
        try:
            await board.start()
        except BoardUnavailable:
            return False
        return True

    await until(answers)


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[StartServer]:
    servers: list[Server] = []

    async def start_server(*options: str, name: str = "redis") -> Server:
        servers.append(Server(tmp_path / name, *options))
        await servers[-1].start()
        return servers[-1]

    yield start_server
    for server in servers:
        await server.close()


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    return await start_server()


@pytest.fixture
async def board_on() -> AsyncIterator[BoardOn]:
    boards: list[RedisBoard] = []

    def board_on(url: str, timeout_ms: float = TIMEOUT_MS, prefix: str = "mesh") -> RedisBoard:
        boards.append(RedisBoard(url, timeout_ms=timeout_ms, prefix=prefix))
        return boards[-1]

    yield board_on
    for board in boards:
        await board.close()


@pytest.fixture
def board(server: Server, board_on: BoardOn) -> RedisBoard:
    return board_on(server.url)
