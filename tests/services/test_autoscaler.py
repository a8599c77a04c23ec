"""The autoscaler over a real embedded log; only the processes are played."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, Log
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.errors import LogUnavailable, NotFound
from mesh.core.protocol.record import NewRecord
from mesh.core.run.control import AGENT, Switch, control_record
from mesh.core.scaling.policy import Decision, Scaler, ScalingRule, ScalingSample
from mesh.core.topology.loader import load
from mesh.services.autoscaler import Autoscaler
from tests.adapters.log_kit import until

TOPOLOGY = load("""
mesh: {name: t, prefix: mesh, inbox: {partitions: 4}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents: {echo: {run: "x:y", on: ask, emits: answer, lanes: 2}}
""")
RULE = ScalingRule(1, 3, cooldown_ms=60, polling_ms=5)


class Crew:
    """Processes that are at work as soon as they are wanted."""

    def __init__(self) -> None:
        self.number = 1
        self.settled = True
        self.scaled: list[int] = []

    def scale(self, number: int) -> None:
        self.number = number
        self.scaled.append(number)


class Told:
    """The texts that the autoscaler reported."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.samples: list[ScalingSample] = []

    def __call__(self, sample: ScalingSample, decision: Decision) -> None:
        self.samples.append(sample)
        self.decisions.append(decision)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = SqliteLog(tmp_path / "mesh.db")
    await log.start()
    await log.create_topics(topic_specs(TOPOLOGY))
    yield log
    await log.close()


def tasks(count: int) -> list[NewRecord]:
    return [NewRecord(TOPOLOGY.tasks("echo"), b"k", b"{}", (), number % 4) for number in range(count)]


async def watched(log: Log, crew: Crew, told: Told, holds: Callable[[], object]) -> None:
    """Let it run until something holds."""
    stop = asyncio.Event()
    scaler = Autoscaler(log, TOPOLOGY, ["echo"], Scaler(RULE, [TOPOLOGY.agents["echo"]]), SystemClock(), crew, told)
    async with asyncio.TaskGroup() as group:
        group.create_task(scaler.run(stop))
        await scaler.ready.wait()
        await until(holds)
        stop.set()


async def test_a_backlog_makes_more_workers_up_to_the_most(log: Log) -> None:
    await log.append(tasks(100))
    crew, told = Crew(), Told()
    await watched(log, crew, told, lambda: crew.number == 3 and told.decisions[-1].limit)
    assert crew.scaled == [2, 3]
    assert next(d.why for d in told.decisions if d.why).startswith("100 tasks of echo wait (threshold 2), the oldest")
    assert told.decisions[-1].limit.endswith("max=3 allows no more")


async def test_without_a_backlog_there_are_fewer_down_to_the_fewest(log: Log) -> None:
    crew, told = Crew(), Told()
    crew.number = 3
    await watched(log, crew, told, lambda: crew.number == 1)
    assert crew.scaled == [2, 1]


async def test_a_worker_that_has_not_started_yet_is_waited_for(log: Log) -> None:
    await log.append(tasks(100))
    crew, told = Crew(), Told()
    crew.settled = False
    await watched(log, crew, told, lambda: len(told.samples) > 10)
    assert crew.scaled == []


async def test_tasks_that_wait_for_a_stopped_agent_start_no_worker(log: Log) -> None:
    stop = Switch(AGENT, "echo", "stopped", "ida", "")
    await log.append([control_record(stop, TOPOLOGY, event_id="s1"), *tasks(100)])
    crew, told = Crew(), Told()
    await watched(log, crew, told, lambda: len(told.samples) > 10)
    assert crew.scaled == []
    assert told.samples[0].stopped == {"echo"}


async def test_a_log_that_is_gone_is_reported(log: Log) -> None:
    class Gone(SqliteLog):
        """One that loses its server after a while."""

        looks = 3

        async def bounds(self, topic: str) -> Mapping[int, Bounds]:
            self.looks -= topic == TOPOLOGY.tasks("echo")
            if self.looks < 0:
                raise LogUnavailable("gone")
            return await log.bounds(topic)

    gone = Gone(log.file.path)  # type: ignore[attr-defined]
    await gone.start()
    crew, told = Crew(), Told()
    with pytest.raises(ExceptionGroup) as raised:
        await watched(gone, crew, told, lambda: False)
    assert raised.group_contains(LogUnavailable)
    assert len(told.samples) == 3
    await gone.close()


async def test_a_mesh_without_topics_is_reported(tmp_path: Path) -> None:
    empty = SqliteLog(tmp_path / "empty.db")
    await empty.start()
    scaler = Autoscaler(
        *(empty, TOPOLOGY, ["echo"], Scaler(RULE, [TOPOLOGY.agents["echo"]]), SystemClock(), Crew(), Told())
    )
    with pytest.raises(ExceptionGroup) as raised:
        await scaler.run(asyncio.Event())
    assert raised.group_contains(NotFound)
    await empty.close()
