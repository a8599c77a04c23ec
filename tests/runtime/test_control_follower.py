"""A small topic followed from its beginning, and mesh.control folded as it comes."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.adapters.ports import Log, TopicSpec
from mesh.app.wiring import open_log, topic_specs
from mesh.core.errors import NotFound
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.run.control import ALL, NOTHING, Control, Switch, control_record
from mesh.core.topology.loader import load
from mesh.runtime.control_follower import ControlFollower, TopicFollower, control_now
from mesh.settings import Settings
from tests.adapters.log_kit import until
from tests.services.conftest import append

TOPOLOGY = load("""
mesh: {name: t, prefix: mesh, inbox: {partitions: 2}}
topics: {asks: {ingress: ask, partitions: 2}, answers: {egress: answer, partitions: 2}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")
STOP = Switch("agent", "echo", "stopped", "ann@desk", "too chatty")


def turn(switch: Switch, id: str = "c1") -> NewRecord:
    return control_record(switch, TOPOLOGY, event_id=id)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = open_log(Settings(log=f"sqlite:{tmp_path / 'mesh.db'}"))
    await log.start()
    yield log
    await log.close()


@asynccontextmanager
async def running(follower: TopicFollower | ControlFollower) -> AsyncIterator[None]:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(follower.run())
        yield
        task.cancel()


def values(records: list[Record]) -> list[bytes | None]:
    return [record.value for record in records]


async def test_all_that_lies_there_and_all_that_comes_is_handed_on_in_order(log: Log) -> None:
    await log.create_topics([TopicSpec("t", 1)])
    await append(log, *(NewRecord("t", b"k", b"%d" % n) for n in range(3)))
    found: list[Record] = []
    follower = TopicFollower(log, "t", found.extend)
    async with running(follower):
        await follower.caught_up.wait()
        assert values(found) == [b"0", b"1", b"2"]
        await append(log, NewRecord("t", b"k", b"3"))
        await until(lambda: len(found) == 4)
    assert values(found) == [b"0", b"1", b"2", b"3"]


async def test_an_empty_topic_is_caught_up_with_at_once(log: Log) -> None:
    await log.create_topics([TopicSpec("t", 1)])
    follower = TopicFollower(log, "t", lambda records: pytest.fail(f"there is nothing: {records}"))
    async with running(follower):
        await follower.caught_up.wait()


async def test_a_topic_that_is_not_there_is_not_found(log: Log) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await TopicFollower(log, "nowhere", lambda records: None).run()


async def test_a_stop_reaches_followers_and_so_does_its_end(log: Log) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    told: list[Control] = []
    follower = ControlFollower(log, TOPOLOGY, told.append)
    async with running(follower):
        await follower.caught_up.wait()
        assert (follower.control, told) == (NOTHING, [])
        await append(log, turn(STOP))
        await until(lambda: len(told) == 1)
        stop = follower.control.stop_of("echo")
        assert stop is not None
        assert (stop.by, stop.why, stop.offset) == ("ann@desk", "too chatty", 0)
        assert stop.at_ms > 0, "the log's time"
        await append(log, turn(STOP._replace(state="running"), "c2"))
        await until(lambda: len(told) == 2)
    assert (follower.control.stop_of("echo"), told[-1]) == (None, follower.control)


async def test_a_stop_from_before_stands_when_it_has_caught_up(log: Log) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    await append(log, turn(STOP._replace(agent=ALL)))
    follower = ControlFollower(log, TOPOLOGY, lambda control: None)
    async with running(follower):
        await follower.caught_up.wait()
        assert follower.control.stop_of("echo") is not None


@pytest.mark.parametrize("look", [True, False])
async def test_invalid_records_are_logged_and_stop_no_follower(
    log: Log, look: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    await append(log, NewRecord(TOPOLOGY.control, b"k", b"\xff"), turn(STOP))
    follower = ControlFollower(log, TOPOLOGY, lambda control: None)
    with caplog.at_level(logging.WARNING, "mesh.follow"):
        if look:
            control = await control_now(log, TOPOLOGY)
        else:
            async with running(follower):
                await follower.caught_up.wait()
                control = follower.control
    assert control.stop_of("echo") is not None
    assert "was skipped" in caplog.text


async def test_what_stands_now_can_be_asked_once_even_on_a_log_without_the_topic(log: Log) -> None:
    assert await control_now(log, TOPOLOGY) == NOTHING
    await log.create_topics(topic_specs(TOPOLOGY))
    assert await control_now(log, TOPOLOGY) == NOTHING
    await append(log, turn(STOP))
    assert [stop.agent for stop in (await control_now(log, TOPOLOGY)).stops] == ["echo"]
