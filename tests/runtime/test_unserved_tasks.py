"""Tasks of an agent that no worker serves: when they time out, and that no worker begins them later."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Commit, Log
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.errors import Fenced, LogUnavailable
from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import NO_USAGE, TASK, Event
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.run.control import NOTHING, Control, Switch
from mesh.core.task.poison import CommitMarks, decode, encode
from mesh.core.topology.loader import load
from mesh.runtime.unserved_tasks import UnservedTasks
from tests.adapters.log_kit import Recorder
from tests.services.conftest import append, read_all

MESH = load(
    "mesh: {name: t, prefix: mesh, inbox: {partitions: 1}}\ntopics: {asks: {ingress: ask, partitions: 1}}\n"
    "agents: {echo: {run: 'x:y', on: ask, timeout: 5s}}"
)
GROUP, TOPIC = "mesh.echo", TopicPartition("mesh.tasks.echo", 0)
GRACE_MS = 1_000
LIMIT_MS = 6_000


class HandClock(SystemClock):
    """Log time and uptime go on together, and only when they are moved."""

    def __init__(self) -> None:
        self.at_ms = 1_795_176_000_000

    def now_ms(self) -> int:
        return self.at_ms

    def uptime_ms(self) -> float:
        return float(self.at_ms)


class SetBack(SqliteLog):
    """A log whose clock is set back, as that of a broker may be."""

    back_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() - self.back_ms


class World:
    """A log with the topics of the mesh, its clock, and what looks after the tasks."""

    def __init__(self, log: SqliteLog, clock: HandClock) -> None:
        self.log, self.clock, self.control = log, clock, NOTHING
        self.unserved = UnservedTasks(log, MESH, clock, lambda: self.control, grace_ms=GRACE_MS)
        self.unserved.partitions.add(0)

    async def answers(self) -> list[Event]:
        found = [read_event(record) for record in await read_all(self.log, MESH.inbox)]
        assert not any(isinstance(event, Unreadable) for event in found)
        return [event for event in found if isinstance(event, Event)]

    async def place(self) -> Commit | None:
        return (await self.log.committed(GROUP, TOPIC.topic)).get(0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = HandClock()
    log = SqliteLog(tmp_path / "mesh.db", clock=clock)
    await log.start()
    await log.create_topics(topic_specs(MESH))
    yield World(log, clock)
    await log.close()


def task(n: int) -> NewRecord:
    event = Event(f"t{n}:1", "/mesh/t", "ask", TASK, f"r{n}", b'{"n":1}', agent="echo", task_id=f"t{n}", path=("echo",))
    return NewRecord(TOPIC.topic, b"k", event.data, event_headers(event))


async def joined(log: Log) -> Recorder:
    listener = Recorder()
    listener.member = await log.join(GROUP, [TOPIC.topic], listener, session_timeout_ms=2_000)  # type: ignore[attr-defined]
    return listener


async def test_a_task_that_no_worker_serves_times_out_after_its_timeout_and_the_grace(world: World) -> None:
    await append(world.log, task(1))
    assert await world.unserved.look() == 0
    world.clock.at_ms += LIMIT_MS - 1
    assert await world.unserved.look() == 0
    world.clock.at_ms += 1
    assert await world.unserved.look() == 1
    (answer,) = await world.answers()
    assert answer.fault is not None
    assert (answer.kind, answer.task_id, answer.data) == ("failed", "t1", b'{"n":1}')
    assert (answer.fault.code, answer.fault.retryable, answer.usage) == ("timed_out", True, NO_USAGE)
    assert "no worker of 'echo' was there for 6000 ms" in answer.fault.message
    assert await world.place() == Commit(1), "a worker that comes later does not begin it"
    assert await world.unserved.look() == 0


async def test_each_task_has_its_own_time_and_a_later_one_waits(world: World) -> None:
    await world.unserved.look()
    await append(world.log, task(1))
    world.clock.at_ms += LIMIT_MS - 500
    await append(world.log, task(2))
    world.clock.at_ms += 500
    assert await world.unserved.look() == 1
    world.clock.at_ms += LIMIT_MS
    assert await world.unserved.look() == 1
    assert [answer.task_id for answer in await world.answers()] == ["t1", "t2"]


async def test_a_task_from_before_the_logs_clock_was_set_back_does_not_wait_for_that_time(tmp_path: Path) -> None:
    clock = HandClock()
    log = SetBack(tmp_path / "mesh.db", clock=clock)
    await log.start()
    await log.create_topics(topic_specs(MESH))
    world = World(log, clock)
    await append(log, task(1))
    assert await world.unserved.look() == 0
    log.back_ms = 180_000
    clock.at_ms += LIMIT_MS - 1
    assert await world.unserved.look() == 0
    clock.at_ms += 1
    assert await world.unserved.look() == 1
    await log.close()


async def test_while_a_worker_lives_nothing_times_out_however_long_it_waits(world: World) -> None:
    await append(world.log, task(1))
    listener = await joined(world.log)
    for _ in range(3):
        assert await world.unserved.look() == 0
        world.clock.at_ms += 10 * LIMIT_MS
    await listener.member.close()  # type: ignore[attr-defined]
    assert await world.unserved.look() == 0, "its worker has just gone: the time begins now"
    world.clock.at_ms += LIMIT_MS
    assert await world.unserved.look() == 1


async def test_an_agent_that_was_stopped_waits(world: World) -> None:
    await append(world.log, task(1))
    world.control = Control(0, 0, {"agent:echo": Switch("agent", "echo", "stopped")})
    await world.unserved.look()
    world.clock.at_ms += 10 * LIMIT_MS
    assert await world.unserved.look() == 0
    world.control = NOTHING
    assert await world.unserved.look() == 0, "and has its whole time once it is resumed"


async def test_tasks_of_partitions_of_another_process_are_left_to_it(world: World) -> None:
    await append(world.log, task(1))
    world.unserved.partitions.clear()
    await world.unserved.look()
    world.clock.at_ms += 10 * LIMIT_MS
    assert await world.unserved.look() == 0


async def test_what_is_no_task_is_left_to_a_worker_and_so_is_what_lies_behind_it(world: World) -> None:
    await append(world.log, task(1), NewRecord(TOPIC.topic, b"k", b"junk", (), None), task(2))
    await world.unserved.look()
    world.clock.at_ms += LIMIT_MS
    assert await world.unserved.look() == 1
    assert await world.place() == Commit(1)


async def test_what_a_dead_worker_had_begun_is_charged_and_stays_suspected(world: World) -> None:
    await append(world.log, task(1), task(2))
    marks = CommitMarks(True, 1, 0, frozenset(), {1: 2}, "w")
    await world.log.commit_idle(GROUP, {TOPIC: Commit(0, encode(marks, 0))})
    await world.unserved.look()
    world.clock.at_ms += LIMIT_MS
    assert await world.unserved.look() == 2
    assert [answer.usage for answer in await world.answers()] == [None, NO_USAGE]
    place = await world.place()
    assert place is not None
    assert (place.offset, decode(place.metadata, 2).working) == (2, True)


async def test_only_a_group_without_members_is_idle_and_takes_commits_from_outside(world: World) -> None:
    groups = [GROUP, "mesh.none"]
    assert list(await world.log.idle_groups(groups)) == groups
    listener = await joined(world.log)
    assert list(await world.log.idle_groups(groups)) == ["mesh.none"]
    with pytest.raises(Fenced):
        await world.log.commit_idle(GROUP, {TOPIC: Commit(5)})
    assert await world.place() is None
    await listener.member.close()  # type: ignore[attr-defined]
    await world.log.commit_idle(GROUP, {TOPIC: Commit(5)})
    assert await world.place() == Commit(5)


class Deaf(SqliteLog):
    """A log that does not answer the second question about groups."""

    looks = 0

    async def idle_groups(self, groups: Sequence[str]) -> Sequence[str]:
        self.looks += 1
        if self.looks == 2:
            raise LogUnavailable("look into the groups of workers did not end", where=self.url)
        return await super().idle_groups(groups)


class Enough(Exception):
    """The clock has stopped."""


class Hurried(HandClock):
    """A pause takes no time, and moves the clock by as much; there are twelve."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[int] = []

    async def sleep_ms(self, ms: float) -> None:
        if len(self.pauses) == 12:
            raise Enough
        self.pauses.append(round(ms))
        self.at_ms += round(ms)


async def test_a_look_without_an_answer_is_repeated_and_the_time_begins_again(tmp_path: Path) -> None:
    clock = Hurried()
    log = Deaf(tmp_path / "mesh.db", clock=HandClock())
    await log.start()
    await log.create_topics(topic_specs(MESH))
    world = World(log, clock)
    await append(log, task(1))
    with pytest.raises(Enough):
        await world.unserved.run()
    assert clock.pauses == [1_000, 5_000, *[1_000] * 10]
    assert log.looks == 13
    began_ms = HandClock().at_ms
    assert world.unserved._since_ms == {"echo": began_ms + 6_000}, "a worker may have lived meanwhile"
    await log.close()
