"""Checkpoints on a log: whole or not at all, never mixed up, trimmed but for the one that stands."""

import asyncio
import base64
import os
import zlib
from dataclasses import replace

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Log
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.run.state import Held
from mesh.core.state.checkpoint import CheckpointLoader, CheckpointUnreadable, Extent, Snapshot
from mesh.core.state.partition_state import Ended, Partition
from mesh.runtime.checkpoint_store import NAME, SLICE_CHUNKS, CheckpointStore
from tests.runtime.checkpoint_kit import OLD, folded, log, requested
from tests.services.conftest import append, read_all

__all__ = ["log"]
CHECKPOINTS = TopicPartition(OLD.checkpoints, 0)


@pytest.fixture
def checkpoints(log: Log) -> CheckpointStore:
    return CheckpointStore(log, OLD, SystemClock())


def content(loading: CheckpointLoader) -> tuple[object, ...]:
    state = loading.partition(OLD)
    return state.runs, state.ended, state.offset, state.control


async def big(log: Log, *run_ids: str) -> Partition:
    """A state that needs several records: incompressible inputs wait in it, each larger than a record may be."""
    await requested(log, *run_ids)
    state = await folded(log)
    for run in state.runs.values():
        for task in run.open.values():
            task.held = Held("ask", "text/plain", base64.b64encode(os.urandom(30_000)), 1)
    return state


async def test_what_was_written_is_read_though_a_run_is_larger_than_a_record(
    log: Log, checkpoints: CheckpointStore
) -> None:
    state = await big(log, "r1", "r2")
    place = await checkpoints.write(Snapshot(state), 0)
    assert place.records > 4
    assert content(await checkpoints.read(0, [place])) == (state.runs, state.ended, state.offset, state.control)


async def test_two_that_write_at_once_do_not_mix(log: Log, checkpoints: CheckpointStore) -> None:
    first, second = await big(log, "r1", "r2"), await big(log, "r3")
    places = await asyncio.gather(*(checkpoints.write(Snapshot(state), 0) for state in (first, second)))
    spans = [range(place.first, place.last) for place in places]
    assert set(spans[0]) & set(spans[1]), "they lie among each other"
    for state, place in zip((first, second), places, strict=True):
        assert (await checkpoints.read(0, [place])).partition(OLD).runs == state.runs


async def test_a_place_where_something_is_missing_is_refused(log: Log, checkpoints: CheckpointStore) -> None:
    place = await checkpoints.write(Snapshot(await big(log, "r1")), 0)
    count = place.records
    with pytest.raises(CheckpointUnreadable, match=rf"{count} of the {count + 1} records at 0 are there"):
        await checkpoints.read(0, [place._replace(records=place.records + 1)])
    with pytest.raises(CheckpointUnreadable, match=r"are gone: mesh\.checkpoints:0 holds offsets 0 to"):
        await checkpoints.read(0, [place._replace(last=place.last + 1)])
    with pytest.raises(CheckpointUnreadable, match="are there"):
        await checkpoints.read(0, [place._replace(last=place.last - 1)])
    await log.trim(CHECKPOINTS, place.last + 1)
    with pytest.raises(CheckpointUnreadable, match="are gone"):
        await checkpoints.read(0, [place])


async def test_bytes_that_are_damaged_are_refused(log: Log, checkpoints: CheckpointStore) -> None:
    for value in (b"no zlib", zlib.compress(b"no json"), zlib.compress(b'state {"schema":99}')):
        (at,) = [one.end for one in (await log.bounds(OLD.checkpoints)).values()]
        await append(log, NewRecord(OLD.checkpoints, b"0", value, [(NAME, b"")], 0))
        with pytest.raises(CheckpointUnreadable):
            await checkpoints.read(0, [Extent(at, at, 1)])


async def test_trimming_leaves_the_one_that_stands_and_takes_what_was_never_named(
    log: Log, checkpoints: CheckpointStore
) -> None:
    state = await big(log, "r1")
    await checkpoints.write(Snapshot(state), 0)
    broken_off = asyncio.create_task(checkpoints.write(Snapshot(state), 0))
    async with asyncio.timeout(20):
        while True:
            if (await log.bounds(OLD.checkpoints))[0].end >= 4:
                break
            await asyncio.sleep(0)
    broken_off.cancel()
    await asyncio.wait([broken_off])
    stands = await checkpoints.write(Snapshot(state), 0)
    later = await checkpoints.write(Snapshot(state), 0)
    await checkpoints.trim(0, [stands])
    assert (await log.bounds(OLD.checkpoints))[0].start == stands.first
    for place in (stands, later):
        assert (await checkpoints.read(0, [place])).partition(OLD).runs == state.runs
    assert {dict(record.headers)[NAME] for record in await read_all(log, OLD.checkpoints)} == {
        b"",
        b"%d" % stands.first,
        b"%d" % later.first,
    }


async def test_a_log_that_refuses_a_part_is_unavailable(log: Log) -> None:
    nowhere = CheckpointStore(log, replace(OLD, prefix="other"), SystemClock())
    with pytest.raises(LogUnavailable, match="the log refused a part of a checkpoint"):
        await nowhere.write(Snapshot(await folded(log)), 0)


async def test_writing_and_reading_let_others_run(log: Log, checkpoints: CheckpointStore) -> None:
    await requested(log, *(f"r{n}" for n in range(40)))
    state = await folded(log)
    for n in range(20_000):
        state.ended[f"x{n}"] = Ended("completed", (), n)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    place = await checkpoints.write(Snapshot(state), 0)
    writing, turns = turns, 0
    await checkpoints.read(0, [place])
    beside.cancel()
    chunks = len(list(Snapshot(state).chunks()))
    assert writing >= chunks // SLICE_CHUNKS > 1
    assert turns >= chunks
