"""Three brokers: replicas, the loss of one, and questions that reach the wrong one."""

import asyncio
import secrets
import signal
import time
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import NotCoordinatorForGroupError

from mesh.adapters.kafka import KafkaLog, commits
from mesh.adapters.ports import Commit, TopicSpec
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.adapters.log_kit import PATIENCE_S, Recorder, append, numbered, partitions_of, read, take, until, values
from tests.live.conftest import OpenKafka, StartKafka
from tests.live.servers import KafkaServer

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def cluster(start_kafka: StartKafka) -> KafkaServer:
    return start_kafka(brokers=3)


@pytest.fixture
async def log(cluster: KafkaServer, open_kafka: OpenKafka) -> KafkaLog:
    return await open_kafka(cluster.bootstrap, append_timeout_ms=90_000, request_timeout_ms=30_000)


async def create(log: KafkaLog, partitions: int, **config: str) -> str:
    name = f"c{secrets.token_hex(6)}"
    spec = TopicSpec(name, partitions, {key.replace("_", "."): value for key, value in config.items()})
    assert list(await log.create_topics([spec])) == [name]
    return name


async def config_of(log: KafkaLog, topic: str) -> dict[str, str]:
    topics, _ = log._start_once()
    (answer,) = await topics._admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return {entry[0]: entry[1] for entry in answer.resources[0][4]}


async def test_topics_have_three_replicas_of_which_two_must_be_there(log: KafkaLog) -> None:
    topic = await create(log, 4, message_timestamp_type="LogAppendTime")
    topics, _ = log._start_once()
    (described,) = await topics._admin.describe_topics([topic])
    assert {len(partition["replicas"]) for partition in described["partitions"]} == {3}
    config = await config_of(log, topic)
    assert config["min.insync.replicas"] == "2"
    assert config["message.timestamp.type"] == "LogAppendTime"
    declared = await create(log, 1, min_insync_replicas="1")
    assert (await config_of(log, declared))["min.insync.replicas"] == "1"


async def test_a_broker_that_is_not_the_coordinator_is_not_taken_for_no_commit(log: KafkaLog) -> None:
    # aiokafka's own reading answers {} here: the group would begin again at its first record.
    topic = await create(log, 1)
    (place,) = partitions_of(topic, 1)
    listener = Recorder()
    member = await log.join(f"{topic}.group", [topic], listener)
    await until(lambda: listener.held == {place}, "assignment")
    await member.commit({place: Commit(5, "here")})
    topics, _ = log._start_once()
    coordinator = await topics._admin.find_coordinator(f"{topic}.group")
    for node in (1, 2, 3):

        async def ask(request: Any, node: int = node) -> Any:
            return await topics._send(request, node)

        if node == coordinator:
            assert await commits.fetch(ask, f"{topic}.group", [place]) == {place: Commit(5, "here")}
        else:
            with pytest.raises(NotCoordinatorForGroupError):
                await commits.fetch(ask, f"{topic}.group", [place])
    await member.close()


async def test_a_member_whose_coordinator_moved_goes_on_from_its_place(log: KafkaLog) -> None:
    topic = await create(log, 1)
    (place,) = partitions_of(topic, 1)
    await append(log, numbered(topic, range(10)))
    first = Recorder()
    member = await log.join(f"{topic}.group", [topic], first)
    await until(lambda: first.held == {place}, "assignment")
    await member.commit({place: Commit(5)})
    await member.close()
    topics, _ = log._start_once()
    coordinator = await topics._admin.find_coordinator(f"{topic}.group")

    class Misled(Recorder):
        """Lets the member ask the wrong broker from the moment at which it is assigned something."""

        def assigned(self, partitions: Sequence[TopicPartition]) -> None:
            member._coordinator.coordinator_id = coordinator % 3 + 1
            super().assigned(partitions)

    listener = Misled()
    member = await log.join(f"{topic}.group", [topic], listener)
    await until(lambda: listener.held == {place}, "assignment")
    assert await member.committed(place) == Commit(5)
    member._coordinator.coordinator_id = coordinator % 3 + 1
    await member.commit({place: Commit(6)})
    if listener.held:
        member.resume(place)
    assert values(await take(member, 5))[0] == b"5"
    await member.close()


async def test_the_loss_of_one_broker_loses_nothing_and_stops_no_process(cluster: KafkaServer, log: KafkaLog) -> None:
    topic = await create(log, 6)
    places = partitions_of(topic, 6)
    listener = Recorder()
    member = await log.join(f"{topic}.group", [topic], listener, session_timeout_ms=10_000)
    await until(lambda: listener.held == places, "assignment")
    member.resume(*places)
    await append(log, [NewRecord(topic, b"%d" % n, b"%d" % n) for n in range(100)])
    await member.commit({TopicPartition(topic, p): Commit(1, "before") for p in range(6)})
    topics, _ = log._start_once()
    # The worst one: it leads partitions and coordinates the group.
    node = await topics._admin.find_coordinator(f"{topic}.group")
    cluster.signal(signal.SIGKILL, node)
    # Never "not committed", at no moment of the election of another coordinator.
    answers = [await log.committed(f"{topic}.group", topic)]
    end = time.monotonic() + 1
    while time.monotonic() < end:
        answers.append(await log.committed(f"{topic}.group", topic))
    assert answers == [{p: Commit(1, "before") for p in range(6)}] * len(answers)
    await append(log, [NewRecord(topic, b"%d" % n, b"%d" % n) for n in range(100, 200)])
    found: set[bytes | None] = set()
    async with asyncio.timeout(3 * PATIENCE_S):
        while len(found) < 200:
            polled = await member.poll(records_max=100, wait_ms=200)
            found |= {record.value for records in polled.values() for record in records}
            for place in member.assignment:
                if member.position(place) is None:
                    member.resume(place)
    bounds = await log.bounds(topic)
    records = await read(log.reader(dict.fromkeys(places, 0)), sum(b.end for b in bounds.values()))
    assert sorted(int(value or b"") for value in values(records)) == list(range(200))
    await asyncio.to_thread(cluster.start)
    await append(log, numbered(topic, range(200, 210)))
    await member.close()
