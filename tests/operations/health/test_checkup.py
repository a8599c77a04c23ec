"""Checks run side by side, and whatever goes wrong in one of them is a finding."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh.adapters.ports import Commit
from mesh.adapters.sqlite import SqliteLog
from mesh.core.errors import LogUnavailable
from mesh.core.health.finding import ERROR, NOTE, OK, WARNING, Finding
from mesh.core.protocol.record import TopicPartition
from mesh.operations.health.checkup import (
    check_clock,
    check_dead_letters,
    check_files,
    check_lag,
    run_checks,
    versions,
)
from tests.core.metrics.scenario import BEGIN_MS, MESH
from tests.operations.test_window_reading import CLOCK, log, play

__all__ = ["log"]


async def fine() -> Sequence[Finding]:
    return [Finding(OK, "fine", "it is")]


async def hangs() -> Sequence[Finding]:
    await asyncio.Event().wait()
    return []


async def fails() -> Sequence[Finding]:
    raise LogUnavailable("it is away", where="there", expected="it", got="nothing", remedy="start it")


async def fails_in_a_group() -> Sequence[Finding]:
    async with asyncio.TaskGroup() as group:
        group.create_task(fails())
    return []


async def test_findings_come_in_order_and_failures_are_findings() -> None:
    found = await run_checks({"h": hangs, "f": fine, "x": fails, "g": fails_in_a_group}, 0.05)
    assert [(one.level, one.where, one.what) for one in found] == [
        (ERROR, "h", "no answer in time"),
        (OK, "fine", "it is"),
        (ERROR, "x there", "it is away"),
        (ERROR, "g there", "it is away"),
    ]
    assert found[2][3:] == ("it", "nothing", "start it")


async def test_a_bug_is_no_finding() -> None:
    async def bug() -> Sequence[Finding]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_checks({"bug": bug}, 30)


async def test_lag_and_dead_letters_of_a_log(log: SqliteLog) -> None:
    await play(log)
    CLOCK.at_ms = BEGIN_MS + 60_000
    (found,) = await check_lag(log, MESH)
    assert (found.level, found.where) == (ERROR, "orchestrator")
    (letters,) = await check_dead_letters(log, MESH)
    assert (letters.level, letters.what) == (WARNING, "1 kept, 1 of the last hour")
    CLOCK.at_ms += 3_600_000
    (letters,) = await check_dead_letters(log, MESH)
    assert (letters.level, letters.what) == (NOTE, "1 kept, 0 of the last hour")
    bounds = await log.bounds(MESH.inbox)
    ends = {TopicPartition(MESH.inbox, number): Commit(each.end) for number, each in bounds.items()}
    await log.commit_idle(MESH.group("orchestrator"), ends)
    assert [one.level for one in await check_lag(log, MESH)] == [OK]


async def test_a_log_whose_clock_differs(log: SqliteLog) -> None:
    (found,) = await check_clock(log, MESH)  # its clock stands at the time of the scenario
    assert (found.level, found.where) == (WARNING, "log")


def test_files_that_others_may_read(tmp_path: Path) -> None:
    file = tmp_path / "mesh.db"
    assert check_files([file]) == []
    file.touch(0o600)
    assert [one.where for one in check_files([file, tmp_path / "mesh.db-wal"])] == ["disk", "files"]
    file.chmod(0o644)
    found = check_files([file])[1]
    assert (found.level, found.got, found.next) == (WARNING, "mode 0644", f"chmod go-rwx {file}")


def test_versions() -> None:
    found = versions({"mesh": "1", "redis": None})
    assert (found.level, found.what, found.next) == (NOTE, "mesh 1", "not installed: redis")
    assert versions({"mesh": "1", "aiokafka": "2"}).what == "mesh 1, aiokafka 2"
