"""The check of a part of the log: the runs of a time span, read from one deadline before it."""

from collections.abc import AsyncIterator

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.sqlite.run_index import MEMORY, RunIndexFile
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import NewRecord
from mesh.core.verification.report import VerificationReport
from mesh.operations.run_index import RunIndex, identity_of
from mesh.operations.run_places import RunPlaces
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


async def places_of(mesh: MeshTest, run_id: str) -> RunPlaces:
    """The places of a run, from an index."""
    file = RunIndexFile(MEMORY)
    file.open(identity_of(mesh.topology, await mesh.log.topics()))
    index = RunIndex(mesh.log, mesh.topology, file)
    await index.catch_up()
    return await index.places(run_id)


async def test_of_one_run_little_is_read_where_its_places_are_known(mesh: MeshTest) -> None:
    run_id = await ended(mesh, "a")
    for n in range(20):
        await ended(mesh, f"b-{n}")
    await read_until(mesh.log, mesh.topology.outcomes, 21)
    inbox: list[int] = []
    for places in (await places_of(mesh, run_id), None):
        read: list[int] = []
        found = await verify(mesh.log, mesh.topology, SystemClock(), run_id=run_id, places=places, read=read.append)
        assert found.first is None
        assert (found.report.runs, found.report.endings["completed"]) == (1, 1)
        inbox.append(sum(read))
    assert inbox[1] - inbox[0] == 20 * 3  # of the inbox only the run's own records are read


async def test_what_no_decision_published_is_found_where_the_places_of_a_run_are_known(mesh: MeshTest) -> None:
    run_id = await ended(mesh, "a")
    await read_until(mesh.log, mesh.topology.outcomes, 1)
    (answer,) = [r async for r in read_records(mesh.log, "answers", await mesh.log.bounds("answers"))]
    forged = dict(plain_headers(answer.headers)) | {"ce_id": b"forged"}
    await mesh.log.append([NewRecord("answers", answer.key, answer.value, tuple(forged.items()))])
    for places in (await places_of(mesh, run_id), None):
        found = await verify(mesh.log, mesh.topology, SystemClock(), run_id=run_id, places=places)
        assert found.first is not None
        assert found.first.violation.invariant == "I6"
