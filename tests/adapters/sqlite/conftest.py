"""Files, logs and child processes of the tests of the embedded log; all are gone after the test."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from mesh.adapters.sqlite import SqliteFile, SqliteLog
from tests.adapters.log_kit import PATIENCE_S

ROOT = Path(__file__).parents[3]
OpenFile = Callable[[], Awaitable[SqliteFile]]


class Child:
    """A process of `child.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> list[str]:
        """The words of the next line; none at the end."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            return (await self.process.stdout.readline()).decode().split()

    async def hear(self, *words: str) -> None:
        """Read on until this is said."""
        while (said := await self.line()) != list(words):
            assert said, f"the child ended without saying {words}"

    def order(self, *words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write((" ".join(words) + "\n").encode())

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


Spawn = Callable[..., Awaitable[Child]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mesh.db"


@pytest.fixture
async def open_file(path: Path) -> AsyncIterator[OpenFile]:
    """Opens the file once more."""
    files: list[SqliteFile] = []

    async def open_file() -> SqliteFile:
        file = SqliteFile(path)
        await file.start()
        files.append(file)
        return file

    yield open_file
    for file in files:
        await file.close()


@pytest.fixture
async def log(path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(path)
    await log.start()
    yield log
    await log.close()


@pytest.fixture
async def spawn() -> AsyncIterator[Spawn]:
    """Starts `child.py` with these arguments."""
    children: list[Child] = []

    async def spawn(*arguments: object) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.adapters.sqlite.child",
            *map(str, arguments),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        children.append(Child(process))
        return children[-1]

    yield spawn
    for child in children:
        if child.process.returncode is None:
            child.signal(signal.SIGKILL)
        await child.end()
