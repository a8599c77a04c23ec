"""Records past their retention are found and removed, but for those that a group has not read."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, Commit
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.state.checkpoint import CommitNote, Extent
from mesh.core.topology.model import DAY_MS, Topology
from mesh.operations.retention import Expired, find_expired, remove
from tests.adapters.log_kit import Recorder, resumed
from tests.builders import topology

MESH = replace(topology(echo="ask -> answer"), inbox_partitions=1)
NOW_MS = SystemClock().now_ms()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(tmp_path / "mesh.db")
    await log.start()
    await log.create_topics(topic_specs(MESH))
    yield log
    await log.close()


async def filled(log: SqliteLog, topic: str, count: int = 5) -> TopicPartition:
    for n in range(count):
        await log.append([NewRecord(topic, b"k", b"%d" % n, [], 0)])
    return TopicPartition(topic, 0)


async def committed(log: SqliteLog, group: str, place: TopicPartition, commit: Commit) -> None:
    listener = Recorder()
    member = await log.join(f"{MESH.prefix}.{group}", [place.topic], listener)
    await resumed(member, listener, [place])
    await member.commit({place: commit})
    await member.close()


async def expired(log: SqliteLog, topic: str, *, days: float, mesh: Topology = MESH) -> list[Expired]:
    specs = [spec for spec in topic_specs(mesh) if spec.name == topic]
    return await find_expired(log, mesh, specs, NOW_MS + round(days * DAY_MS))


async def test_outcomes_go_when_they_are_older_than_their_retention(log: SqliteLog) -> None:
    place = await filled(log, MESH.outcomes)
    assert await expired(log, MESH.outcomes, days=29) == []
    (found,) = await expired(log, MESH.outcomes, days=31)
    assert found == Expired(place, 30 * DAY_MS, 0, 5)
    await remove(log, found)
    assert await log.bounds(MESH.outcomes) == {0: Bounds(5, 5)}


async def test_what_is_kept_forever_never_goes(log: SqliteLog) -> None:
    await filled(log, MESH.outcomes)
    mesh = replace(MESH, retention=replace(MESH.retention, outcomes_ms=-1))
    assert await expired(log, MESH.outcomes, days=3_000, mesh=mesh) == []
    await filled(log, MESH.checkpoints)
    assert await expired(log, MESH.checkpoints, days=3_000) == []


async def test_tasks_that_no_worker_has_read_are_kept(log: SqliteLog) -> None:
    place = await filled(log, MESH.tasks("echo"))
    assert await expired(log, place.topic, days=8) == []
    await committed(log, "echo", place, Commit(3))
    assert [one.until for one in await expired(log, place.topic, days=8)] == [3]


async def test_the_inbox_is_kept_from_the_checkpoint_on(log: SqliteLog) -> None:
    place = await filled(log, MESH.inbox)
    await committed(log, "orchestrator", place, Commit(5))
    assert await expired(log, place.topic, days=31) == [], "no checkpoint: a restore reads from the first record"
    note = CommitNote(MESH.digest, 2, (Extent(0, 1, 1),))
    await committed(log, "orchestrator", place, Commit(5, note.text()))
    assert [one.until for one in await expired(log, place.topic, days=31)] == [2]
    await committed(log, "orchestrator", place, Commit(5, "damaged"))
    assert await expired(log, place.topic, days=31) == []
