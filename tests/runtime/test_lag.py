"""The lag of an agent's group on the embedded log."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mesh.adapters.ports import Bounds, Commit, Log
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.errors import NotFound
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.scaling.lag import GroupOffsets
from mesh.core.task.poison import CommitMarks, encode
from mesh.core.topology.loader import load
from mesh.runtime.lag import group_lags, places
from mesh.runtime.log_reader import read_records
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


async def test_every_group_has_its_lag_age_and_work_in_flight(log: Log) -> None:
    await log.append(records([3, 2]))
    listener = Recorder()
    member = await log.join(TOPOLOGY.group("echo"), [TASKS], listener)
    await resumed(member, listener, PARTITIONS)
    marks = encode(CommitMarks(working=True, claimed=64, by="worker-1"), 1)
    await member.commit({PARTITIONS[0]: Commit(1, marks), PARTITIONS[1]: Commit(2)})
    await member.close()
    before_ms = log.now_ms()
    found = {each.consumer: each for each in await group_lags(log, TOPOLOGY)}
    assert list(found) == ["intake", "orchestrator", "echo"]
    assert (found["intake"].topic, found["intake"].lag, found["intake"].in_flight) == ("asks", 0, None)
    echo = found["echo"]
    assert (echo.partitions, echo.in_flight) == ({0: 2, 1: 0}, 2)
    first = (await anext(aiter(read_records(log, TASKS, {0: Bounds(1, 2)})))).timestamp
    assert echo.age_ms is not None
    assert echo.age_ms >= before_ms - first


async def test_a_monitor_has_a_lag_once_one_has_committed(log: Log) -> None:
    await log.append([NewRecord(TOPOLOGY.inbox, b"k", b"{}", (), 0)] * 2)
    listener = Recorder()
    member = await log.join(TOPOLOGY.group("monitor"), [TOPOLOGY.inbox], listener)
    inbox = TopicPartition(TOPOLOGY.inbox, 0)
    await resumed(member, listener, [inbox, TopicPartition(TOPOLOGY.inbox, 1)])
    await member.commit({inbox: Commit(1)})
    await member.close()
    found = [(each.consumer, each.lag) for each in await group_lags(log, TOPOLOGY) if each.topic == TOPOLOGY.inbox]
    assert found == [("orchestrator", 2), ("monitor", 1)]


async def test_groups_without_their_topics_have_no_lag(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "empty.db")
    await log.start()
    assert await group_lags(log, TOPOLOGY) == []
    await log.close()
