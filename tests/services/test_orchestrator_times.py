"""Timers of the orchestrator on a log whose clock is not this machine's, and may be set."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Log
from mesh.adapters.sqlite import SqliteLog
from mesh.core.protocol.event import DUE, NO_USAGE, Event, Fault
from mesh.core.task import result
from mesh.core.topology.loader import load
from mesh.services.orchestrator import Orchestrator
from tests.services.conftest import append, read_all, read_until, settled, working
from tests.services.test_orchestrator import GROUP, TEXT, TOPOLOGY, event, orchestrator, request, to_inbox

HOUR_MS = 3_600_000


class Offset(SystemClock):
    """A wall clock that is off, and may be set."""

    def __init__(self, ahead_ms: int = 0) -> None:
        self.ahead_ms = ahead_ms

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


@pytest.fixture
async def jumping(tmp_path: Path) -> AsyncIterator[tuple[SqliteLog, Offset]]:
    """A log with a clock of its own, which may be set."""
    clock = Offset()
    log = SqliteLog(tmp_path / "jumping.db", clock=clock)
    await log.start()
    yield log, clock
    await log.close()


async def fired(log: Log) -> list[Event]:
    return [found for record in await read_all(log, TOPOLOGY.inbox) if (found := event(record)).kind == DUE]


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS, 300, -300])
async def test_timers_follow_the_log_whatever_the_clock_of_this_machine_says(
    jumping: tuple[SqliteLog, Offset], ahead_ms: int
) -> None:
    log, clock = jumping
    clock.ahead_ms = -ahead_ms
    async with working(log, TOPOLOGY, orchestrator(log).run):
        begun_s = time.monotonic()
        await append(log, request("r1", expiry_ms=-600))
        (task,) = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 1)]
        await append(log, to_inbox(result.failure_event(task, Fault("exception", "boom"), NO_USAGE)))
        again = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 2, deadline_s=20)][1]
        (outcome,) = await read_until(log, TOPOLOGY.outcomes, 1, deadline_s=20)
        took_s = time.monotonic() - begun_s
    assert again.attempt == 2
    assert orjson.loads(outcome.value or b"")["ending"] == "stopped"
    assert took_s >= 0.6
    assert len(await fired(log)) == 2, "the retry and the deadline, each once"


async def test_what_waits_is_not_hurried_by_a_log_whose_clock_jumps_ahead(jumping: tuple[SqliteLog, Offset]) -> None:
    log, clock = jumping
    async with working(log, TOPOLOGY, orchestrator(log).run):
        begun_s = time.monotonic()
        await append(log, request("r1", expiry_ms=-900))
        await read_until(log, TOPOLOGY.tasks("echo"), 1)
        clock.ahead_ms = HOUR_MS
        await append(log, request("r2", expiry_ms=-300))
        outcomes = await read_until(log, TOPOLOGY.outcomes, 2, deadline_s=20)
        assert time.monotonic() - begun_s >= 0.9
    assert [outcome.key for outcome in outcomes] == [b"r2", b"r1"]
    assert len(await fired(log)) == 2


async def test_a_new_owner_of_a_log_in_which_nothing_happens_knows_how_late_it_is(
    jumping: tuple[SqliteLog, Offset],
) -> None:
    log, clock = jumping
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, request("r1"))
        await read_until(log, TOPOLOGY.tasks("echo"), 1)
        await settled(log, GROUP, TOPOLOGY.inbox)
    clock.ahead_ms = 60_000  # for this time no orchestrator ran
    async with working(log, TOPOLOGY, orchestrator(log).run):
        (outcome,) = await read_until(log, TOPOLOGY.outcomes, 1, deadline_s=20)
    assert orjson.loads(outcome.value or b"")["ending"] == "stopped"


async def test_without_any_worker_a_run_fails_as_after_timeouts_and_a_worker_that_comes_later_has_nothing_to_do(
    log: Log,
) -> None:
    mesh = load(TEXT.replace("emits: answer,", "emits: answer, timeout: 100ms,"))
    service = Orchestrator(log, mesh, SystemClock(), session_timeout_ms=2_000, absence_ms=100)
    async with working(log, mesh, service.run):
        await append(log, request("r1"))
        (outcome,) = await read_until(log, mesh.outcomes, 1)
        await settled(log, f"{mesh.prefix}.echo", mesh.tasks("echo"))
    body = orjson.loads(outcome.value or b"")
    assert body["ending"] == "failed"
    (failure,) = body["failures"]
    assert (failure["code"], failure["attempts"]) == ("timed_out", 2)
    assert "no worker of 'echo' was there" in failure["message"]
