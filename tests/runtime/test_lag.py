"""The lag of an agent's group on the embedded log."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mesh.adapters.ports import Commit, Log
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.errors import NotFound
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.scaling.lag import GroupOffsets
from mesh.core.topology.loader import load
from mesh.runtime.lag import places
from tests.adapters.log_kit import Recorder, resumed

TOPOLOGY = load("""
mesh: {name: t, prefix: p, inbox: {partitions: 2}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")
TASKS = TOPOLOGY.tasks("echo")
PARTITIONS = [TopicPartition(TASKS, 0), TopicPartition(TASKS, 1)]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = SqliteLog(tmp_path / "mesh.db")
    await log.start()
    await log.create_topics(topic_specs(TOPOLOGY))
    yield log
    await log.close()


def records(counts: Sequence[int]) -> list[NewRecord]:
    return [NewRecord(TASKS, b"k", b"{}", (), partition) for partition, n in enumerate(counts) for _ in range(n)]


async def test_a_group_that_never_committed_stands_at_the_first_record(log: Log) -> None:
    assert await places(log, TOPOLOGY, "echo") == {0: GroupOffsets(0, 0), 1: GroupOffsets(0, 0)}
    await log.append(records([3, 5]))
    assert await places(log, TOPOLOGY, "echo") == {0: GroupOffsets(0, 3), 1: GroupOffsets(0, 5)}


async def test_what_is_committed_does_not_wait(log: Log) -> None:
    await log.append(records([3, 5]))
    listener = Recorder()
    member = await log.join(TOPOLOGY.group("echo"), [TASKS], listener)
    await resumed(member, listener, PARTITIONS)
    await member.commit({PARTITIONS[1]: Commit(4, "mine")})
    await member.close()
    assert await places(log, TOPOLOGY, "echo") == {0: GroupOffsets(0, 3), 1: GroupOffsets(4, 5)}


async def test_what_was_removed_does_not_wait(log: Log) -> None:
    await log.append(records([4, 0]))
    await log.trim(PARTITIONS[0], 3)
    found = (await places(log, TOPOLOGY, "echo"))[0]
    assert found.end == 4
    assert found.committed == (await log.bounds(TASKS))[0].start


async def test_without_the_topic_it_says_so(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "empty.db")
    await log.start()
    with pytest.raises(NotFound):
        await places(log, TOPOLOGY, "echo")
    await log.close()
