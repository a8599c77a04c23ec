"""Topologies are kept once each, and found by those who come later."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Appended, Log, Refused
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.errors import ForeignLog, LogUnavailable, NotRestorable
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.loader import load
from mesh.core.topology.serialization import pinned_bytes
from mesh.runtime.topology_store import TopologyStore, expect_own_log
from tests.runtime.checkpoint_kit import NEW, OLD, log
from tests.services.conftest import append, read_all

__all__ = ["log"]


async def test_a_topology_is_kept_once_however_often_it_starts(log: Log) -> None:
    for mesh in (OLD, NEW, OLD, NEW):
        await TopologyStore(log, mesh, SystemClock()).keep()
    assert [record.key for record in await read_all(log, OLD.topologies)] == [OLD.digest.encode(), NEW.digest.encode()]


async def test_an_earlier_topology_is_found_also_when_it_was_kept_after_we_began(log: Log) -> None:
    mine = TopologyStore(log, NEW, SystemClock())
    await mine.keep()
    await TopologyStore(log, OLD, SystemClock()).keep()
    assert await mine.find([OLD.digest, NEW.digest]) == {OLD.digest: OLD, NEW.digest: NEW}


async def test_one_that_was_never_kept_is_named(log: Log) -> None:
    mine = TopologyStore(log, NEW, SystemClock())
    await mine.keep()
    with pytest.raises(NotRestorable, match=f"topology {OLD.digest} is not kept"):
        await mine.find([NEW.digest, OLD.digest])


async def test_an_invalid_topology_record_affects_only_runs_that_need_it(log: Log) -> None:
    await append(log, NewRecord(OLD.topologies, OLD.digest.encode(), b"{}", (), 0))
    mine = TopologyStore(log, NEW, SystemClock())
    await mine.keep()
    assert (await mine.find([NEW.digest]))[NEW.digest] == NEW
    with pytest.raises(NotRestorable):
        await mine.find([OLD.digest])


async def test_our_own_topology_is_stored_again_where_the_stored_one_cannot_be_read(log: Log) -> None:
    await append(log, NewRecord(OLD.topologies, NEW.digest.encode(), b"{}", (), 0))
    await TopologyStore(log, NEW, SystemClock()).keep()
    assert await TopologyStore(log, OLD, SystemClock()).find([NEW.digest]) == {NEW.digest: NEW}


@pytest.mark.parametrize("first", [True, False])
async def test_what_is_forged_under_a_digest_takes_no_place_of_the_topology_that_has_it(log: Log, first: bool) -> None:
    true = NewRecord(OLD.topologies, OLD.digest.encode(), pinned_bytes(OLD), (), 0)
    false = true._replace(value=pinned_bytes(NEW))
    await append(log, *((false, true) if first else (true, false)))
    assert await TopologyStore(log, NEW, SystemClock()).find([OLD.digest]) == {OLD.digest: OLD}


async def test_our_own_topology_is_stored_again_where_another_lies_under_its_digest(log: Log) -> None:
    await append(log, NewRecord(OLD.topologies, NEW.digest.encode(), pinned_bytes(OLD), (), 0))
    await TopologyStore(log, NEW, SystemClock()).keep()
    assert await TopologyStore(log, OLD, SystemClock()).find([NEW.digest]) == {NEW.digest: NEW}


async def test_a_log_that_refuses_the_topology_is_unavailable(log: Log) -> None:
    large = NEW.agents["other"]
    mesh = replace(NEW, agents={f"a{n}": large for n in range(500)})
    with pytest.raises(LogUnavailable, match="the log refused the topology"):
        await TopologyStore(log, mesh, SystemClock()).keep()


NAMED = """
mesh: {mesh}
topics: {{asks: {{ingress: ask, partitions: 1}}}}
agents: {{echo: {{run: "x:y", on: ask}}}}
"""
OTHER = load(NAMED.format(mesh="{name: other, prefix: mesh, inbox: {partitions: 1}}"))


async def test_a_mesh_of_another_name_is_refused_with_the_owner_of_the_topics(log: Log) -> None:
    await TopologyStore(log, OLD, SystemClock()).keep()
    for refused in (TopologyStore(log, OTHER, SystemClock()).keep(), expect_own_log(log, OTHER, SystemClock())):
        with pytest.raises(
            ForeignLog, match=r"prefix 'mesh' belong to mesh 't'.*got mesh 'other' of .*`prefix`"
        ) as told:
            await refused
        assert told.value.where == f"{log.url} mesh.topologies"
    await expect_own_log(log, NEW, SystemClock())  # the same mesh, changed


@pytest.mark.parametrize("name", ["mesh.inbox", "mesh.tasks.echo", "mesh.redrives"])
async def test_an_own_topic_of_another_mesh_is_no_ingress_topic(log: Log, name: str) -> None:
    await TopologyStore(log, OLD, SystemClock()).keep()
    with pytest.raises(ForeignLog, match=f"topic '{name}' is an own topic of the mesh with the prefix 'mesh'") as told:
        await expect_own_log(log, load(NAMED.format(mesh="{name: other}").replace("asks:", f"{name}:")), SystemClock())
    assert told.value.where == "topics.yaml:3"
    await expect_own_log(
        log, load(NAMED.format(mesh="{name: other}").replace("asks:", "shop.inbox:")), SystemClock()
    )  # no mesh has it


async def test_of_two_meshes_that_start_at_once_on_one_prefix_the_first_record_decides(
    log: Log, tmp_path: Path
) -> None:
    class Overtaken(SqliteLog):
        """A log to which another mesh writes between our look and our record."""

        async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
            await append(log, NewRecord(OLD.topologies, OLD.digest.encode(), pinned_bytes(OLD), (), 0))
            return await super().append(records)

    overtaken = Overtaken(tmp_path / "mesh.db")
    await overtaken.start()
    with pytest.raises(ForeignLog, match="belong to mesh 't'"):
        await TopologyStore(overtaken, OTHER, SystemClock()).keep()
    await overtaken.close()
    await TopologyStore(log, OLD, SystemClock()).keep()
    with pytest.raises(ForeignLog):
        await TopologyStore(log, OTHER, SystemClock()).keep()


async def test_data_under_the_former_default_prefix_are_not_forgotten(log: Log) -> None:
    await TopologyStore(log, OLD, SystemClock()).keep()
    nameless = load(NAMED.format(mesh="{name: t, inbox: {partitions: 1}}"))
    assert nameless.prefix == "t"
    with pytest.raises(ForeignLog, match=r"lie under the prefix 'mesh'.*Add that line"):
        await expect_own_log(log, nameless, SystemClock())
    for begun_anew in ("{name: t, prefix: t2}", "{name: other}"):
        await expect_own_log(log, load(NAMED.format(mesh=begun_anew)), SystemClock())
    await log.create_topics(topic_specs(nameless))
    await TopologyStore(log, nameless, SystemClock()).keep()
    await expect_own_log(log, nameless, SystemClock())  # it has topics of its own by now
