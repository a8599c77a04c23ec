"""Runs found by the name of a request that came when they had ended."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from mesh.core.history.timeline import History
from mesh.core.protocol.record import TopicPartition
from mesh.operations.runs import Runs
from mesh.testing import MeshTest
from tests.operations.test_runs import TOPOLOGY, first, second


@pytest.fixture
async def mesh() -> AsyncIterator[MeshTest]:
    async with MeshTest(TOPOLOGY, agents={"first": first, "second": second}) as mesh:
        yield mesh


async def ended_run(mesh: MeshTest, id: str, run_id: str) -> None:
    """A run with this id that has ended."""
    run = await mesh.publish("ask", {"id": id}, run_id=run_id)
    assert (await run.outcome(timeout_s=20)).ending == "completed"


def reported(history: History) -> tuple[Any, ...]:
    """Return the reported facts of a run, without its times."""
    assert history.ended_ms is not None
    tasks = [(task.agent, task.state) for task in history.tasks.values()]
    return history.run_id, history.ending, history.differs, history.ended_ms >= history.opened_ms, tasks


WHOLE = ("R1", "completed", False, True, [("first", "done"), ("second", "done")])


@pytest.mark.parametrize("name", ["second", "case 7", "R1", "first"])
async def test_a_run_found_by_a_request_that_it_refused_is_shown_from_its_beginning(mesh: MeshTest, name: str) -> None:
    await ended_run(mesh, "first", "R1")
    await mesh.publish("ask", {"id": "second"}, run_id="R1", subject="case 7")
    history = await Runs(mesh.log, mesh.topology).find(name)
    assert reported(history) == WHOLE
    assert [moment.kind for moment in history.moments].count("ended") == 1
    assert history.moments[0].kind == "requested"
    assert "already_terminal" in history.moments[-1].text


@pytest.mark.parametrize(("payload", "code"), [({}, "duplicate_request"), ({"fail": True}, "idempotency_conflict")])
async def test_a_repeated_request_is_noted_in_the_history_of_its_run(
    mesh: MeshTest, payload: dict[str, Any], code: str
) -> None:
    await ended_run(mesh, "first", "R1")
    await mesh.publish("ask", {"id": "first", **payload}, run_id="R1", subject="again")
    for name in ("again", "first", "R1"):
        history = await Runs(mesh.log, mesh.topology).find(name)
        assert reported(history) == WHOLE
        assert code in history.moments[-1].text


async def test_a_request_after_the_removal_of_its_runs_records_opens_no_history(mesh: MeshTest) -> None:
    await ended_run(mesh, "first", "R1")
    for number, bounds in (await mesh.log.bounds(mesh.topology.inbox)).items():
        await mesh.log.trim(TopicPartition(mesh.topology.inbox, number), bounds.end)
    await mesh.publish("ask", {"id": "second"}, run_id="R1")
    history = await Runs(mesh.log, mesh.topology).find("second")
    assert reported(history) == ("R1", "completed", False, True, [])
    assert "began before the records that are left" in history.moments[-1].text
