"""Times on Kafka: whatever time a producer names, a record bears the broker's, and retention counts from there."""

import asyncio
import secrets
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import Commit, TopicSpec
from mesh.app.wiring import check_topics, topic_specs
from mesh.core.errors import Fenced, TopicsInvalid
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology
from tests.adapters.log_kit import Recorder, append, read, until
from tests.cli.clocks import Clocks, check

pytestmark = pytest.mark.live
DAY_MS = 86_400_000
YEAR_2200_MS = 7_258_118_400_000


def topology(mark: str) -> Topology:
    return load(
        f"""
mesh: {{name: t{mark}, prefix: t{mark}, inbox: {{partitions: 1}}}}
topics: {{asks{mark}: {{ingress: ask, partitions: 1}}, answers{mark}: {{egress: answer, partitions: 1}}}}
agents: {{echo: {{run: "x:y", on: ask, emits: answer}}}}
"""
    )


async def test_ingress_records_bear_the_time_of_the_broker_whatever_their_producer_says(
    kafka_log: KafkaLog, kafka_bootstrap: str
) -> None:
    mark = secrets.token_hex(4)
    await kafka_log.create_topics(topic_specs(topology(mark)))
    producer = Producer({"bootstrap.servers": kafka_bootstrap})
    now_ms = time.time_ns() // 1_000_000
    for at_ms in (now_ms - 8 * DAY_MS, now_ms + 2 * 3_600_000, YEAR_2200_MS, 1):
        producer.produce(f"asks{mark}", b"{}", timestamp=at_ms)
    assert await asyncio.to_thread(producer.flush, 20) == 0
    records = await read(kafka_log.reader({TopicPartition(f"asks{mark}", 0): 0}), 4)
    assert all(abs(record.timestamp - now_ms) < 60_000 for record in records), [r.timestamp for r in records]


async def test_a_topic_in_which_producers_choose_the_time_is_named_with_the_command_that_changes_it(
    kafka_log: KafkaLog, kafka_bootstrap: str
) -> None:
    mark = secrets.token_hex(4)
    mesh = topology(mark)
    await kafka_log.create_topics([TopicSpec(f"asks{mark}", 1)])
    await kafka_log.create_topics(topic_specs(mesh))
    with pytest.raises(TopicsInvalid) as raised:
        await check_topics(kafka_log, mesh)
    assert raised.value.problems == (f"asks{mark} has message.timestamp.type=CreateTime, expected LogAppendTime",)
    assert (
        f"kafka-configs.sh --bootstrap-server {kafka_bootstrap} --entity-type topics --entity-name asks{mark} "
        "--alter --add-config message.timestamp.type=LogAppendTime"
    ) in str(raised.value)


async def test_an_acknowledgement_has_the_time_of_the_broker(kafka_log: KafkaLog) -> None:
    mark = secrets.token_hex(4)
    await kafka_log.create_topics(topic_specs(topology(mark)))
    assert not kafka_log.knows_time
    await append(kafka_log, [NewRecord(f"t{mark}.clock", None, b"{}")])
    assert kafka_log.knows_time
    assert abs(kafka_log.now_ms() - time.time_ns() // 1_000_000) < 2_000


async def test_only_a_group_without_members_is_idle_and_takes_commits_from_outside(kafka_log: KafkaLog) -> None:
    topic = f"idle{secrets.token_hex(4)}"
    await kafka_log.create_topics([TopicSpec(topic, 1)])
    group, place = f"{topic}.group", TopicPartition(topic, 0)
    async with asyncio.timeout(20):  # a coordinator that has just been elected cannot tell yet
        while list(await kafka_log.idle_groups([group])) != [group]:  # noqa: ASYNC110  # the broker sets no event
            await asyncio.sleep(0.05)
    member = await kafka_log.join(group, [topic], Recorder(), session_timeout_ms=2_000)
    async with asyncio.timeout(20):
        while not member.assignment:
            await member.poll(records_max=1, wait_ms=50)
    assert list(await kafka_log.idle_groups([group])) == []
    with pytest.raises(Fenced):
        await kafka_log.commit_idle(group, {place: Commit(5, "x")})
    await member.close()
    assert list(await kafka_log.idle_groups([group])) == [group]
    await kafka_log.commit_idle(group, {place: Commit(5, "x")})
    assert await kafka_log.committed(group, topic) == {0: Commit(5, "x")}
    assert kafka_log._topics is not None
    kafka_log._topics._coordinators[group] = 99  # the broker that coordinated it is gone
    assert list(await kafka_log.idle_groups([group])) == [group]


@pytest.mark.parametrize("ahead_s", [-3_600, 3_600])
def test_services_and_clients_whose_clocks_are_hours_apart_work_together_on_kafka(
    kafka_bootstrap: str, redis_url: str, tmp_path: Path, ahead_s: int
) -> None:
    clocks = Clocks(tmp_path / "clocks", tmp_path, f"-{secrets.token_hex(4)}")
    clocks.cli.environ |= {"MESH_LOG": f"kafka://{kafka_bootstrap}", "MESH_BOARD": redis_url}
    assert clocks.cli.fresh("topics", "create").code == 0
    with (
        clocks.cli.up("orchestrator", env=clocks.of("orchestrator", ahead_s)) as running,
        clocks.cli.up("intake", env=clocks.of("intake", ahead_s)),
        clocks.cli.up("worker", env=clocks.of("worker", -ahead_s)),
    ):
        running.err_until("differs from the log's")
        check(clocks.ask("a", ahead_s))
        check(clocks.ask("b", -ahead_s))
        clocks.of("worker", ahead_s)
        clocks.of("orchestrator", 0)
        check(clocks.ask("c"))


async def test_the_idle_ones_of_several_groups_are_found_in_one_call(kafka_log: KafkaLog) -> None:
    name = f"several{secrets.token_hex(6)}"
    topics = [f"{name}.{n}" for n in range(3)]
    await kafka_log.create_topics([TopicSpec(topic, 1) for topic in topics])
    listeners = [Recorder(), Recorder()]
    busy = [
        await kafka_log.join(f"{topic}.group", [topic], one, session_timeout_ms=2_000)
        for topic, one in zip(topics[::2], listeners, strict=True)
    ]
    await until(lambda: all(len(one.held) == 1 for one in listeners), "both groups have formed")
    idle = await kafka_log.idle_groups([f"{topic}.group" for topic in topics])
    assert list(idle) == [f"{topics[1]}.group"]
    for member in busy:
        await member.close()
