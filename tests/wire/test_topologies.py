"""Topologies are kept once each, and found by those who come later."""

from dataclasses import replace

import pytest

from mesh.core.errors import LogUnavailable, NotRestorable
from mesh.core.record import NewRecord
from mesh.wire.clock import SystemClock
from mesh.wire.ports import Log
from mesh.wire.topologies import Topologies
from tests.services.conftest import append, read_all
from tests.wire.checkpoint_kit import NEW, OLD, log

__all__ = ["log"]


async def test_a_topology_is_kept_once_however_often_it_starts(log: Log) -> None:
    for mesh in (OLD, NEW, OLD, NEW):
        await Topologies(log, mesh, SystemClock()).keep()
    assert [record.key for record in await read_all(log, OLD.topologies)] == [OLD.digest.encode(), NEW.digest.encode()]


async def test_an_earlier_topology_is_found_also_when_it_was_kept_after_we_began(log: Log) -> None:
    mine = Topologies(log, NEW, SystemClock())
    await mine.keep()
    await Topologies(log, OLD, SystemClock()).keep()
    assert await mine.find([OLD.digest, NEW.digest]) == {OLD.digest: OLD, NEW.digest: NEW}


async def test_one_that_was_never_kept_is_named(log: Log) -> None:
    mine = Topologies(log, NEW, SystemClock())
    await mine.keep()
    with pytest.raises(NotRestorable, match=f"topology {OLD.digest} is not kept"):
        await mine.find([NEW.digest, OLD.digest])


async def test_a_record_that_is_no_topology_hurts_only_those_who_need_it(log: Log) -> None:
    await append(log, NewRecord(OLD.topologies, OLD.digest.encode(), b"{}", (), 0))
    mine = Topologies(log, NEW, SystemClock())
    await mine.keep()
    assert (await mine.find([NEW.digest]))[NEW.digest] == NEW
    with pytest.raises(NotRestorable):
        await mine.find([OLD.digest])


async def test_our_own_topology_is_kept_anew_where_what_was_kept_cannot_be_read(log: Log) -> None:
    await append(log, NewRecord(OLD.topologies, NEW.digest.encode(), b"{}", (), 0))
    await Topologies(log, NEW, SystemClock()).keep()
    assert await Topologies(log, OLD, SystemClock()).find([NEW.digest]) == {NEW.digest: NEW}


async def test_a_log_that_refuses_the_topology_is_unavailable(log: Log) -> None:
    large = NEW.agents["other"]
    mesh = replace(NEW, agents={f"a{n}": large for n in range(500)})
    with pytest.raises(LogUnavailable, match="the log refused the topology"):
        await Topologies(log, mesh, SystemClock()).keep()
