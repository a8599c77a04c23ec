"""Appending on a real Kafka: what a broker refuses, in which order records lie, how they travel."""

import asyncio
import logging
import secrets
from collections.abc import Sequence

import pytest

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import Appended, Refused, TopicSpec
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from tests.adapters.log_kit import append, numbered, read, values
from tests.live.conftest import OpenKafka

pytestmark = pytest.mark.live


async def create(log: KafkaLog, partitions: int = 1, **config: str) -> str:
    name = f"a{secrets.token_hex(6)}"
    await log.create_topics([TopicSpec(name, partitions, {k.replace("_", "."): v for k, v in config.items()})])
    return name


async def read_all(log: KafkaLog, topic: str) -> list[Record]:
    bounds = await log.bounds(topic)
    reader = log.reader({TopicPartition(topic, p): b.start for p, b in bounds.items()})
    return await read(reader, sum(b.end - b.start for b in bounds.values()))


def codes(verdicts: Sequence[Appended | Refused]) -> list[str]:
    return [verdict.code if isinstance(verdict, Refused) else "" for verdict in verdicts]


async def test_records_that_the_broker_refuses_are_found_and_the_others_go_in(kafka_log: KafkaLog) -> None:
    # A compacted topic takes no record without a key: INVALID_RECORD, which aiokafka calls "unknown error".
    topic = await create(kafka_log, cleanup_policy="compact")
    bad = {17, 40, 41, 99}
    records = [NewRecord(topic, None if n in bad else b"k%d" % n, b"%d" % n, (), 0) for n in range(100)]
    verdicts = await kafka_log.append(records)
    assert {n for n, code in enumerate(codes(verdicts)) if code == "invalid"} == bad
    assert values(await read_all(kafka_log, topic)) == [b"%d" % n for n in range(100) if n not in bad]
    offsets = [v.offset for v in verdicts if isinstance(v, Appended)]
    assert offsets == list(range(96))


async def test_after_a_refused_batch_the_partition_goes_on(kafka_log: KafkaLog) -> None:
    # The broker misses the sequence numbers of what it refused: the old producer would get nothing in any more.
    topic = await create(kafka_log, 2, cleanup_policy="compact")
    for n in range(5):
        (refused,) = await kafka_log.append([NewRecord(topic, None, b"bad", (), 0)])
        assert isinstance(refused, Refused)
        verdicts = await kafka_log.append([NewRecord(topic, b"k", b"%d" % n, (), p) for p in (0, 1)])
        assert verdicts == [Appended(0, n), Appended(1, n)]


async def test_calls_behind_a_refused_batch_keep_their_order(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log, 2, cleanup_policy="compact")
    calls = []
    for n in range(40):
        records = [NewRecord(topic, b"k", b"%d" % n, (), n % 2)]
        if n % 7 == 0:
            records.insert(0, NewRecord(topic, None, b"bad", (), n % 2))
        calls.append(asyncio.ensure_future(kafka_log.append(records)))
    await asyncio.gather(*calls)
    records_read = await read_all(kafka_log, topic)
    for partition in (0, 1):
        mine = [r.value for r in records_read if r.partition == partition]
        assert mine == [b"%d" % n for n in range(40) if n % 2 == partition]


async def test_a_batch_that_is_too_large_for_the_topic_is_split(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log, max_message_bytes="20000")
    records = [NewRecord(topic, b"k", b"%03d" % n + b"x" * 500, (), 0) for n in range(200)]
    assert codes(await kafka_log.append(records)) == [""] * 200
    assert values(await read_all(kafka_log, topic)) == [record.value for record in records]


async def test_a_record_that_is_too_large_for_the_topic_is_refused_alone(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log, max_message_bytes="20000")
    sizes = [10, 30_000, 10, 25_000, 10]
    verdicts = await kafka_log.append([NewRecord(topic, b"k", b"x" * size, (), 0) for size in sizes])
    assert codes(verdicts) == ["", "too_large", "", "too_large", ""]
    assert len(await read_all(kafka_log, topic)) == 3


async def test_what_is_no_record_is_refused_and_the_others_go_in(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    strange = [
        NewRecord(topic, b"k", "text", (), 0),  # type: ignore[arg-type]
        NewRecord(topic, "text", b"v", (), 0),  # type: ignore[arg-type]
        NewRecord(topic, b"k", b"v", (("h", "text"),), 0),
        NewRecord(topic, b"k", b"v", ((b"h", b"v"),), 0),  # type: ignore[arg-type]
        NewRecord(topic, b"k", b"v", (5,), 0),  # type: ignore[arg-type]
    ]
    good = numbered(topic, range(6))
    mixed = [record for pair in zip(good, strange, strict=False) for record in pair] + good[5:]
    assert codes(await kafka_log.append(mixed)) == ["", "invalid"] * 5 + [""]
    assert values(await read_all(kafka_log, topic)) == [b"%d" % n for n in range(6)]


async def test_calls_keep_the_order_in_which_they_were_made(kafka_log: KafkaLog, open_kafka: OpenKafka) -> None:
    topic = await create(kafka_log, 3)
    calls = []
    for n in range(300):
        calls.append(asyncio.ensure_future(kafka_log.append([NewRecord(topic, b"k", b"%d" % n, (), n % 3)])))
        await asyncio.sleep(0)
    # The first had to ask about the topic; the others must not overtake it.
    await asyncio.gather(*calls)
    records = await read_all(kafka_log, topic)
    for partition in range(3):
        mine = [r.value for r in records if r.partition == partition]
        assert mine == [b"%d" % n for n in range(partition, 300, 3)]


async def test_the_records_of_one_call_travel_in_one_request(
    kafka_log: KafkaLog, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await create(kafka_log, 4)
    await append(kafka_log, [NewRecord(topic, b"k", b"v", (), p) for p in range(4)])
    headers = tuple((f"ce_header{n}", b"a value of some length") for n in range(12))
    with caplog.at_level(logging.DEBUG, "aiokafka.conn"):
        await append(kafka_log, [NewRecord(topic, b"%d" % n, b"x" * 200, headers) for n in range(500)])
    requests = [r for r in caplog.records if "ProduceRequest" in r.getMessage()]
    assert len(requests) == 1


async def test_single_records_of_many_callers_share_requests(
    kafka_log: KafkaLog, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await create(kafka_log)
    await append(kafka_log, numbered(topic, [0]))
    with caplog.at_level(logging.DEBUG, "aiokafka.conn"):
        await asyncio.gather(*(append(kafka_log, numbered(topic, [n])) for n in range(200)))
    requests = [r for r in caplog.records if "ProduceRequest" in r.getMessage()]
    assert len(requests) <= 3


async def test_a_topic_that_was_just_created_elsewhere_takes_records(
    kafka_log: KafkaLog, open_kafka: OpenKafka, kafka_bootstrap: str
) -> None:
    other = await open_kafka(kafka_bootstrap)
    for _ in range(5):
        topic = await create(kafka_log, 3)
        await append(other, [NewRecord(topic, b"%d" % n, b"v") for n in range(30)])


async def test_a_topic_recreated_with_more_partitions_uses_them(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log, 1)
    await append(kafka_log, numbered(topic, [1]))
    from aiokafka.admin import NewPartitions

    topics, _ = kafka_log._start_once()
    await topics._admin.create_partitions({topic: NewPartitions(3)})
    verdict: Appended | Refused = Refused("", "")
    async with asyncio.timeout(10):
        while not isinstance(verdict, Appended):
            (verdict,) = await kafka_log.append(numbered(topic, [2], partition=2))
    assert verdict == Appended(2, 0)


async def test_a_caller_that_gives_up_harms_no_other(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    calls = [asyncio.ensure_future(kafka_log.append(numbered(topic, [n]))) for n in range(50)]
    await asyncio.sleep(0)
    for call in calls[::2]:
        call.cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in done[::2])
    seen = [int(value or b"") for value in values(await read_all(kafka_log, topic))]
    assert seen == sorted(seen)
    assert set(range(1, 50, 2)) <= set(seen)


async def test_a_log_that_is_not_open_says_so(kafka_bootstrap: str) -> None:
    log = KafkaLog(kafka_bootstrap, client_id="test")
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="Call start first"):
            await log.append([NewRecord("t", b"k", b"v")])
        await log.start()
        await log.start()
        await log.close()
        await log.close()


async def test_closing_lets_what_was_handed_over_go_in(
    kafka_log: KafkaLog, open_kafka: OpenKafka, kafka_bootstrap: str
) -> None:
    topic = await create(kafka_log)
    other = await open_kafka(kafka_bootstrap)
    await append(other, numbered(topic, [0]))
    calls = [asyncio.ensure_future(other.append(numbered(topic, [n]))) for n in range(1, 100)]
    await asyncio.sleep(0)
    await other.close()
    assert {code for call in calls for code in codes(await call)} == {""}
    assert len(await read_all(kafka_log, topic)) == 100
