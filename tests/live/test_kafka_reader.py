"""Offsets that hold no record, on a real Kafka: marks of transactions, what was aborted, what retention removed."""

import asyncio
import secrets

import pytest
from aiokafka.admin import RecordsToDelete
from aiokafka.structs import TopicPartition as KafkaPartition
from confluent_kafka import Producer

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import TopicSpec
from mesh.core.errors import NotFound
from mesh.core.protocol.record import TopicPartition
from tests.adapters.log_kit import PATIENCE_S, Recorder, append, numbered, partitions_of, read, resumed, values

pytestmark = pytest.mark.live


async def create(log: KafkaLog, partitions: int = 1) -> str:
    name = f"r{secrets.token_hex(6)}"
    await log.create_topics([TopicSpec(name, partitions)])
    return name


def transact(bootstrap: str, topic: str) -> None:
    """Three records, of which the middle one is aborted; then the end of a transaction is the partition's last."""
    producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": secrets.token_hex(8)})
    producer.init_transactions(30)
    for number in range(3):
        producer.begin_transaction()
        producer.produce(topic, b"%d" % number, partition=0)
        producer.flush(30)
        if number == 1:
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)


async def test_offsets_without_a_record_are_passed_and_what_was_aborted_is_not_read(
    kafka_log: KafkaLog, kafka_bootstrap: str
) -> None:
    topic = await create(kafka_log)
    (place,) = partitions_of(topic, 1)
    await asyncio.to_thread(transact, kafka_bootstrap, topic)
    end = 6  # three records, three marks; the last one is written after the producer was told
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if (await kafka_log.bounds(topic))[0].end == end:
                break
            await asyncio.sleep(0.005)
    listener = Recorder()
    member = await kafka_log.join(f"{topic}.group", [topic], listener, session_timeout_ms=1_500)
    await resumed(member, listener, [place])
    reader = kafka_log.reader({place: 0})
    for one in (member, reader):
        found: list[bytes | None] = []
        async with asyncio.timeout(PATIENCE_S):
            while (one.position(place) or 0) < end:
                polled = await one.poll(records_max=10, wait_ms=200)
                records = polled if not isinstance(polled, dict) else [r for each in polled.values() for r in each]
                found += values(records)  # type: ignore[arg-type]
        assert found == [b"0", b"2"]
    await reader.close()
    await member.close()


async def test_a_reader_begins_at_the_first_record_that_is_left(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    (place,) = partitions_of(topic, 1)
    await append(kafka_log, numbered(topic, range(10)))
    topics, _ = kafka_log._start_once()
    await topics._admin.delete_records({KafkaPartition(*place): RecordsToDelete(7)})
    assert (await kafka_log.bounds(topic))[0].start == 7
    reader = kafka_log.reader({place: 2})
    assert values(await read(reader, 3)) == [b"7", b"8", b"9"]
    # Ahead of the end: it waits there.
    reader.seek(place, 12)
    assert values(await reader.poll(records_max=10, wait_ms=300)) == []
    await append(kafka_log, numbered(topic, range(10, 14)))
    assert values(await read(reader, 2)) == [b"12", b"13"]
    await reader.close()


async def test_a_reader_of_nothing_finds_nothing(kafka_log: KafkaLog) -> None:
    reader = kafka_log.reader({})
    assert await reader.poll(records_max=1, wait_ms=10) == []
    await reader.close()


async def test_a_reader_of_a_topic_that_is_not_there_says_so(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    reader = kafka_log.reader(
        {TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0, TopicPartition("nosuch", 0): 0}
    )
    with pytest.raises(NotFound, match=f"nosuch/0, {topic}/1"):
        await reader.poll(records_max=1, wait_ms=100)
    await reader.close()


async def test_a_reader_knows_only_what_it_reads(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log, 2)
    reader = kafka_log.reader({TopicPartition(topic, 0): 0})
    with pytest.raises(NotFound, match="not read here"):
        reader.seek(TopicPartition(topic, 1), 0)
    with pytest.raises(NotFound, match="not read here"):
        reader.position(TopicPartition(topic, 1))
    await reader.close()
