"""Requests that come again for runs whose records retention has removed."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from mesh import Mesh
from mesh.core.errors import NotAccepted
from mesh.core.protocol.record import TopicPartition
from mesh.core.topology.model import Retention
from mesh.operations.runs import Runs
from mesh.testing import MeshTest
from tests.operations.test_runs import DEADLINE_S, TOPOLOGY, ended, first, second, watched
from tests.services.conftest import read_until


@pytest.fixture
async def short() -> AsyncIterator[MeshTest]:
    """A mesh of which retention removes each outcome at once."""
    mesh = MeshTest(TOPOLOGY, agents={"first": first, "second": second})
    mesh.topology = replace(mesh.topology, retention=Retention(outcomes_ms=0))
    async with mesh:
        yield mesh


async def remove_all(mesh: MeshTest) -> None:
    """Remove every record of the inbox and of the outcomes, as retention does."""
    for topic in (mesh.topology.inbox, mesh.topology.outcomes):
        for number, bounds in (await mesh.log.bounds(topic)).items():
            await mesh.log.trim(TopicPartition(topic, number), bounds.end)


async def test_a_request_that_comes_again_for_a_removed_run_is_answered(short: MeshTest) -> None:
    mesh, runs = short, Runs(short.log, short.topology)
    run_id = await ended(mesh, "a")
    await remove_all(mesh)
    assert await runs.latest(limit=10) == []
    client, places = Mesh(mesh.log, mesh.topology), await runs.ends()
    again = await client.publish("ask", {"id": "a"})
    assert again.id == run_id
    with pytest.raises(NotAccepted, match=r"duplicate_request: request 'a' came again; its run had ended completed"):
        await again.outcome(timeout_s=DEADLINE_S)
    with pytest.raises(NotAccepted, match="idempotency_conflict"):
        await (await client.publish("ask", {"id": "a", "fail": True})).outcome(timeout_s=DEADLINE_S)
    await client.close()
    assert await runs.latest(limit=10) == [], "no run was begun"
    history = await runs.find("a")
    assert (history.state, history.type, history.subject, history.tasks) == ("completed", "ask", "a", {})
    assert history.opened_ms > 0
    assert "its run had ended completed" in history.moments[-1].text
    (change,) = await watched(runs, places, run_id)
    assert (change.ended, change.history.ending) == (True, "completed")


async def test_a_repeated_request_gets_the_outcome_that_is_left(short: MeshTest) -> None:
    mesh, runs = short, Runs(short.log, short.topology)
    run_id = await ended(mesh, "a")
    client = Mesh(mesh.log, mesh.topology)  # it has not seen the outcome
    outcome = await (await client.publish("ask", {"id": "a"})).outcome(timeout_s=DEADLINE_S)
    assert (outcome.run_id, outcome.ending, len(outcome.results)) == (run_id, "completed", 1)
    await read_until(mesh.log, mesh.topology.outcomes, 2)  # the outcome, and the answer
    assert (await client.outcome(run_id)).results == outcome.results, "the answer is no outcome"
    await client.close()
    assert (await runs.find("a")).ending == "completed"
    assert [row.state for row in await runs.latest(limit=10)] == ["completed"]


async def test_a_request_that_comes_again_is_no_open_run_though_its_first_one_is_not_looked_at(
    short: MeshTest,
) -> None:
    mesh = short
    run_id = await ended(mesh, "a")
    for n in range(20):
        await ended(mesh, f"b{n}")
    since_ms = mesh.log.now_ms()
    await mesh.publish("ask", {"id": "a"})
    await read_until(mesh.log, mesh.topology.outcomes, 22)
    runs = Runs(mesh.log, mesh.topology, window_records=1)
    assert [row for row in await runs.latest(limit=1) if row.state == "open"] == []
    assert [row.run_id for row in await runs.latest(limit=10, since_ms=since_ms)] == []
    assert run_id in [row.run_id for row in await runs.latest(limit=100)]
