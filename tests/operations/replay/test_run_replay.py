"""One run read from an embedded log as steps: by its id or subject, while the mesh works, and with removed records."""

from collections.abc import AsyncIterator

import pytest

from mesh.core.errors import InvalidInput, NotFound
from mesh.core.protocol.record import TopicPartition
from mesh.operations.replay.run_replay import replay_run
from mesh.testing import MeshTest
from tests.operations.test_runs import TOPOLOGY, ended, first, second


@pytest.fixture
async def mesh() -> AsyncIterator[MeshTest]:
    async with MeshTest(TOPOLOGY, agents={"first": first, "second": second}) as mesh:
        yield mesh


async def test_a_run_is_found_by_id_prefix_and_subject_and_reported_step_by_step(mesh: MeshTest) -> None:
    run_id = await ended(mesh, "a")
    for name in (run_id, run_id[:8], "a"):
        found = await replay_run(mesh.log, mesh.topology, name)
        assert found.history.run_id == run_id
        assert [(step.kind, step.agent, step.cause) for step in found.steps] == [
            ("requested", "", None),
            ("succeeded", "first", 1),
            ("succeeded", "second", 2),
        ]
        assert found.steps[-1].after is not None
        assert found.steps[-1].after.ending == found.history.ending == "completed"
        assert not found.gaps


async def test_an_unknown_or_ambiguous_name_is_an_error(mesh: MeshTest) -> None:
    await ended(mesh, "a")
    await ended(mesh, "b")
    with pytest.raises(NotFound, match="no run goes by 'nope'"):
        await replay_run(mesh.log, mesh.topology, "nope")
    with pytest.raises(InvalidInput, match="2 runs go by that name"):
        await replay_run(mesh.log, mesh.topology, "")


async def test_a_run_whose_records_were_removed_has_its_outcome_alone(mesh: MeshTest) -> None:
    run_id = await ended(mesh, "a")
    for number, bounds in (await mesh.log.bounds(mesh.topology.inbox)).items():
        await mesh.log.trim(TopicPartition(mesh.topology.inbox, number), bounds.end)
    found = await replay_run(mesh.log, mesh.topology, run_id)
    assert (found.history.ending, found.steps) == ("completed", [])


async def test_a_run_that_lost_its_request_says_so(mesh: MeshTest) -> None:
    run_id = await ended(mesh, "a")
    whole = await replay_run(mesh.log, mesh.topology, run_id)
    place = TopicPartition(mesh.topology.inbox, whole.history.partition)
    await mesh.log.trim(place, int(whole.steps[1].where.rpartition(":")[2]))
    cut = await replay_run(mesh.log, mesh.topology, run_id)
    assert [gap.kind for gap in cut.gaps] == ["trimmed"]
    assert [step.kind for step in cut.steps] == ["succeeded", "succeeded"]
