"""Requests of a mesh go into another one: another prefix, another log, other topics."""

from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.dead_letters.redrive_plan import Obstacle
from mesh.core.dead_letters.resend_plan import ResendOptions
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.loader import load
from mesh.operations.resend import Resend
from tests.operations.broken_log import Broken
from tests.operations.resend_kit import OTHER, House, ask, house, plan_into, records_of, requests_of

__all__ = ["house"]


async def test_requests_go_to_another_prefix_on_the_same_log_and_run_there(house: House) -> None:
    await house.took(ask("a"), ask("b"))
    other = load(OTHER)
    await house.mesh.log.create_topics(topic_specs(other))
    plan = await plan_into(house, house.mesh.log, other)
    assert {sending.topic for sending in plan.sendings} == {"asks2"}
    await Resend(house.mesh.log, other).send(plan)
    assert len(await records_of(house.mesh.log, "asks2")) == 2
    assert len(await records_of(house.mesh.log, "asks")) == 2
    assert len(await records_of(house.mesh.log, "other.redrives")) == 4, "the ledger is that of the target"
    assert not await records_of(house.mesh.log, "mesh.redrives")
    assert (await plan_into(house, house.mesh.log, other)).sendings == []
    assert len((await house.plan()).sendings) == 2, "each mesh has a ledger of its own"


async def test_requests_that_keep_their_ids_begin_runs_of_the_same_ids_on_another_log(
    house: House, tmp_path: Path
) -> None:
    await house.took(ask("a"))
    log = SqliteLog(tmp_path / "other.db")
    await log.start()
    try:
        topology = house.mesh.topology
        await log.create_topics(topic_specs(topology))
        dying: Any = Broken(log, 2, after=True)
        kept = ResendOptions(keep_ids=True)
        with pytest.raises(LogUnavailable):
            await Resend(dying, topology).send(await plan_into(house, log, topology, options=kept))
        rest = await plan_into(house, log, topology, options=kept)
        assert rest.sendings[0].interrupted is not None
        await Resend(log, topology).send(rest)
        (record,) = await records_of(log, "asks")
        assert dict(record.headers)["ce_id"] == b"a"
        (original,) = await requests_of(house.mesh.log, topology)
        assert rest.sendings[0].run_id == original.run_id
        assert len((await plan_into(house, log, topology)).sendings) == 1, "with new ids it is another resend"
    finally:
        await log.close()


@pytest.mark.parametrize(
    ("before", "behind", "said"),
    [
        ("ingress: ask,", "ingress: question,", "no ingress topic of mesh u takes ask"),
        ("limits: {deadline: 30s}", "limits: {deadline: 30s, payload_max: 8B}", "too_large: the payload has 10 bytes"),
        ("  asks2:", "  nowhere:", "the log has no topic nowhere"),
    ],
)
async def test_what_the_other_mesh_would_not_take_is_an_obstacle(
    house: House, before: str, behind: str, said: str
) -> None:
    await house.took(ask("a"))
    text = OTHER.replace(before, behind).replace("on: ask,", "on: question," if "question" in behind else "on: ask,")
    assert text != OTHER
    other = load(text)
    await house.mesh.log.create_topics([spec for spec in topic_specs(other) if spec.name != "nowhere"])
    plan = await plan_into(house, house.mesh.log, other)
    assert plan.sendings == []
    (obstacle,) = plan.obstacles
    assert isinstance(obstacle, Obstacle)
    assert said in obstacle.message


async def test_requests_of_other_topics_than_the_chosen_one_are_obstacles(house: House) -> None:
    await house.took(ask("a"), NewRecord("bids", b"k", b'{"n": 1}'))
    plan = await house.plan(options=ResendOptions(into="bids"))
    assert [sending.topic for sending in plan.sendings] == ["bids"]
    assert [one.message for one in plan.obstacles] == ["ask comes in by topic asks, not by bids"]
