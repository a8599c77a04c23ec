"""The check of a part of the log: the runs of a time span, read from one deadline before it."""

from collections.abc import AsyncIterator

import pytest

from mesh.adapters.clock import SystemClock
from mesh.core.verification.report import VerificationReport
from mesh.operations.verification import WHOLE, Window, verify
from mesh.runtime.log_reader import read_records
from mesh.testing import MeshTest
from tests.operations.test_runs import TOPOLOGY, ended, first, second
from tests.services.conftest import read_until


@pytest.fixture
async def mesh() -> AsyncIterator[MeshTest]:
    async with MeshTest(TOPOLOGY, agents={"first": first, "second": second}) as mesh:
        yield mesh


async def report(mesh: MeshTest, window: Window = WHOLE) -> VerificationReport:
    found = await verify(mesh.log, mesh.topology, SystemClock(), window=window)
    assert found.first is None, found.first
    return found.report


async def test_a_window_that_ends_before_all_has_no_runs_and_one_that_holds_all_has_all(mesh: MeshTest) -> None:
    for name in ("a", "b", "c"):
        await ended(mesh, name)
    await read_until(mesh.log, mesh.topology.outcomes, 3)
    assert (await report(mesh)).runs == 3
    now_ms = mesh.log.now_ms()
    whole = await report(mesh, Window(now_ms - 3_600_000, now_ms + 3_600_000))
    assert (whole.runs, whole.endings["completed"]) == (3, 3)
    none = await report(mesh, Window(None, now_ms - 3_600_000))
    assert none.runs == 0
    assert none.unchecked["published after the window"] == 12  # of each run: two tasks, an egress event, an outcome


async def test_what_was_published_after_the_window_is_counted_and_not_judged(mesh: MeshTest) -> None:
    run_id = await ended(mesh, "a")
    inbox = mesh.topology.inbox
    bounds = await mesh.log.bounds(inbox)
    last = [r async for r in read_records(mesh.log, inbox, bounds) if r.key == run_id.encode()][-1]
    cut = await report(mesh, Window(None, last.timestamp))
    assert cut.records[inbox] < 3
    assert cut.unchecked["published after the window"] >= 2
    assert not cut.endings


async def test_reading_begins_one_deadline_before_the_window(mesh: MeshTest) -> None:
    await ended(mesh, "a")
    at_ms = mesh.log.now_ms()
    late = await report(mesh, Window(at_ms + mesh.topology.limits.deadline_ms + 1_000))
    assert not late.records[mesh.topology.inbox]
    early = await report(mesh, Window(at_ms + mesh.topology.limits.deadline_ms - 10_000))
    assert (early.records[mesh.topology.inbox], early.runs) == (3, 1)
