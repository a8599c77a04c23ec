"""The state of mesh.control reaches every partition of the inbox that lives here, once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.adapters.ports import Log
from mesh.app.wiring import open_log, topic_specs
from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.run.control import NOTHING, Control, Switch, control_record, fold_control
from mesh.core.state.partition_state import Partition
from mesh.core.topology.loader import load
from mesh.runtime.control_relay import ControlRelay
from mesh.settings import Settings
from tests.services.conftest import append, read_all, read_until

TOPOLOGY = load("""
mesh: {name: t, prefix: mesh, inbox: {partitions: 3}}
topics: {asks: {ingress: ask, partitions: 2}, answers: {egress: answer, partitions: 2}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")
STOP = Switch("agent", "echo", "stopped", "ann@desk")
PLACES = [TopicPartition(TOPOLOGY.inbox, number) for number in range(3)]


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = open_log(Settings(log=f"sqlite:{tmp_path / 'mesh.db'}"))
    await log.start()
    await log.create_topics(topic_specs(TOPOLOGY))
    yield log
    await log.close()


@asynccontextmanager
async def relaying(relay: ControlRelay) -> AsyncIterator[None]:
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(relay.run())
        yield
        task.cancel()


async def turn(log: Log, switch: Switch) -> None:
    await append(log, control_record(switch, TOPOLOGY, event_id=f"c-{switch.state}"))


def known(records: list[Record], number: int) -> Control:
    """The state in the fold of a partition after its records."""
    state = Partition(TOPOLOGY, number=number, partitions=3)
    for record in records:
        if record.partition == number:
            assert state.step(record) == []
    return state.control


async def test_each_live_partition_gets_the_control_state_and_no_other(log: Log) -> None:
    relay = ControlRelay(log, TOPOLOGY)
    relay.opened(PLACES[0], NOTHING)
    relay.opened(PLACES[2], NOTHING)
    async with relaying(relay):
        await turn(log, STOP)
        records = await read_until(log, TOPOLOGY.inbox, 2)
    assert sorted(record.partition for record in records) == [0, 2]
    for number in (0, 2):
        stop = known(records, number).stop_of("echo")
        assert stop is not None
        assert (stop.by, stop.offset) == ("ann@desk", 0)


async def test_a_later_partition_gets_the_control_state_that_it_lacks(log: Log) -> None:
    relay = ControlRelay(log, TOPOLOGY)
    await turn(log, STOP)
    async with relaying(relay):
        relay.opened(PLACES[1], NOTHING)
        records = await read_until(log, TOPOLOGY.inbox, 1)
        assert known(records, 1).stop_of("echo") is not None


async def test_a_partition_that_is_up_to_date_gets_nothing_until_there_is_news(log: Log) -> None:
    await turn(log, STOP)
    (found,) = await read_all(log, TOPOLOGY.control)
    relay = ControlRelay(log, TOPOLOGY)
    relay.opened(PLACES[0], fold_control(NOTHING, [found])[0])
    async with relaying(relay):
        await turn(log, STOP._replace(state="running"))
        (record,) = await read_until(log, TOPOLOGY.inbox, 1)
    assert await read_all(log, TOPOLOGY.inbox) == [record], "one record, with the news"
    assert known([record], 0) == Control(1, known([record], 0).at_ms, {})


async def test_a_lost_partition_gets_nothing(log: Log) -> None:
    relay = ControlRelay(log, TOPOLOGY)
    relay.opened(PLACES[0], NOTHING)
    relay.opened(PLACES[1], NOTHING)
    relay.closed(PLACES[0])
    async with relaying(relay):
        await turn(log, STOP)
        (record,) = await read_until(log, TOPOLOGY.inbox, 1)
    assert record.partition == 1


async def test_many_turns_at_once_are_one_record_that_says_what_stands(log: Log) -> None:
    for state in ("stopped", "running", "stopped"):
        await turn(log, STOP._replace(state=state))
    relay = ControlRelay(log, TOPOLOGY)
    relay.opened(PLACES[0], NOTHING)
    async with relaying(relay):
        (record,) = await read_until(log, TOPOLOGY.inbox, 1)
    assert known([record], 0).offset == 2
