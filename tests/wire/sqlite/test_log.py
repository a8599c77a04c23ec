"""The embedded log: the contract, and what only a file can do."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.wire.ports import Log, Member
from mesh.wire.sqlite import SqliteLog
from mesh.wire.sqlite.group import SqliteMember
from tests.wire.log_contract import LogContract
from tests.wire.log_kit import OpenLog


class TestSqliteLog(LogContract):
    session_timeout_ms = 1_000

    @pytest.fixture
    async def open_log(self, tmp_path: Path) -> AsyncIterator[OpenLog]:
        logs: list[SqliteLog] = []

        async def open_log() -> Log:
            log = SqliteLog(tmp_path / "mesh.db")
            await log.start()
            logs.append(log)
            return log

        yield open_log
        for log in logs:
            await log.close()

    async def abandon(self, member: Member) -> None:
        assert isinstance(member, SqliteMember)
        assert member._task is not None
        member._heartbeat.stop()
        member._task.cancel()
        member._closing = True
