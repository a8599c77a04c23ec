"""Shared parts of the tests of mesh.board: a log, a board that may begin anew, and ways to tell and to look."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Appended, Log
from mesh.adapters.sqlite import SqliteBoard, SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.board.changelog import BoardChange, BoardChangelog, BoardRestart, change_record, restart_record
from mesh.core.errors import BoardUnavailable
from tests.builders import AT_MS, topology

ECHO = topology(echo="ask -> answer")
CLOCK = SystemClock()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(tmp_path / "mesh.db")
    await log.start()
    await log.create_topics(topic_specs(ECHO))
    yield log
    await log.close()


@pytest.fixture
async def board(tmp_path: Path) -> AsyncIterator["Reborn"]:
    board = Reborn(tmp_path / "board.db", timeout_ms=10_000)
    await board.start()
    yield board
    await board.close()


class Reborn(SqliteBoard):
    """A board that may be told to begin a new life, or to be gone."""

    new_incarnation = ""
    gone = False
    refusals = 0

    async def incarnation(self) -> str:
        if self.gone:
            self.refusals += 1
            raise BoardUnavailable("gone", where=self.url)
        return self.new_incarnation or await super().incarnation()


def change(key: str, version: str, value: bytes = b"1") -> BoardChange:
    return BoardChange(key, value, version, "pricing/t1", "", AT_MS)


async def tell(log: Log, *told: BoardChange | BoardRestart) -> None:
    records = [change_record(t, ECHO) if isinstance(t, BoardChange) else restart_record(t, ECHO) for t in told]
    for at in range(0, len(records), 500):
        assert all(isinstance(verdict, Appended) for verdict in await log.append(records[at : at + 500]))


async def size(log: Log) -> int:
    bounds = (await log.bounds(ECHO.board))[0]
    return bounds.end - bounds.start


def versions(mirror: BoardChangelog) -> dict[str, str]:
    return {key: held.change.version for key, held in mirror.newest().items()}
