"""Records of other producers: compressed in any way, with header names that are no text, with headers without value."""

import asyncio
import secrets
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from confluent_kafka import Producer

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import Commit, TopicSpec
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from tests.adapters.log_kit import Recorder, append, numbered, partitions_of, read, resumed, take, values

pytestmark = pytest.mark.live
GZIP = 1


async def create(log: KafkaLog, partitions: int = 1) -> str:
    name = f"f{secrets.token_hex(6)}"
    await log.create_topics([TopicSpec(name, partitions)])
    return name


class Raw(str):
    """A header name that is written as bytes which are no UTF-8."""

    def encode(self, *_: str) -> bytes:
        return b"\xff\xfe" + str.encode(self)


async def write(bootstrap: str, topic: str, records: Sequence[tuple[bytes, str]], codec: int = 0) -> None:
    """One batch of values, each with a header of that name, past every check of a client."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        batch = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(2, codec, 0, -1, -1, 0, 1_000_000)
        for value, name in records:
            assert batch.append(timestamp=None, key=b"k", value=value, headers=[(name, value), ("fine", b"\xff")])
        await (await producer.send_batch(batch, topic, partition=0))
    finally:
        await producer.stop()


def shown(records: Sequence[Record]) -> list[tuple[bytes | None, list[str]]]:
    return [(record.value, [name for name, _ in record.headers]) for record in records]


@pytest.mark.parametrize("codec", [0, GZIP])
async def test_a_header_name_that_is_no_text_does_not_stop_its_partition(
    kafka_log: KafkaLog, kafka_bootstrap: str, codec: int
) -> None:
    topic = await create(kafka_log, 2)
    await append(kafka_log, numbered(topic, range(3)))
    strange = [(b"a", "plain"), (b"b", Raw("x")), (b"c", "plain"), (b"d", Raw("y"))]
    await write(kafka_bootstrap, topic, strange, codec)
    await append(kafka_log, numbered(topic, range(3, 6)))
    await write(kafka_bootstrap, topic, [(b"e", Raw(""))], codec)
    await append(kafka_log, numbered(topic, [6]) + numbered(topic, range(5), partition=1))
    expected = [
        *((b"%d" % n, []) for n in range(3)),
        (b"a", ["plain", "fine"]),
        (b"b", ["\\xff\\xfex", "fine"]),
        (b"c", ["plain", "fine"]),
        (b"d", ["\\xff\\xfey", "fine"]),
        *((b"%d" % n, []) for n in range(3, 6)),
        (b"e", ["\\xff\\xfe", "fine"]),
        (b"6", []),
    ]
    listener = Recorder()
    member = await kafka_log.join(f"{topic}.group", [topic], listener)
    await resumed(member, listener, partitions_of(topic, 2))
    for records_max in (1, 2, 100):
        reader = kafka_log.reader(dict.fromkeys(partitions_of(topic, 2), 0))
        found: list[Record] = []
        async with asyncio.timeout(30):
            while len(found) < 17:
                found += await reader.poll(records_max=records_max, wait_ms=1_000)
        assert shown([r for r in found if r.partition == 0]) == expected
        assert values([r for r in found if r.partition == 1]) == [b"%d" % n for n in range(5)]
        assert [r.offset for r in found if r.partition == 0] == list(range(12))
        await reader.close()
    taken = await take(member, 17)
    assert shown([r for r in taken if r.partition == 0]) == expected
    assert member.position(TopicPartition(topic, 0)) == 12
    await member.commit({TopicPartition(topic, 0): Commit(12)})
    # What was read can be written again, for example to the dead letters.
    again = [NewRecord(topic, r.key, r.value, r.headers, 1) for r in taken]
    assert len(await append(kafka_log, again)) == 17
    await member.close()


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_what_others_compressed_is_read(kafka_log: KafkaLog, kafka_bootstrap: str, codec: str) -> None:
    topic = await create(kafka_log)

    def produce() -> None:
        producer = Producer({"bootstrap.servers": kafka_bootstrap, "compression.type": codec, "linger.ms": 50})
        for number in range(200):
            producer.produce(topic, b"%d " % number + b"x" * 100, key=b"k", headers=[("h", b"v"), ("none", None)])
        producer.flush(30)

    await asyncio.to_thread(produce)
    records = await read(kafka_log.reader({TopicPartition(topic, 0): 0}), 200)
    assert values(records) == [b"%d " % number + b"x" * 100 for number in range(200)]
    assert records[0].headers == (("h", b"v"), ("none", None))
