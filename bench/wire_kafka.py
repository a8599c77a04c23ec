"""Measure the log on Kafka, and the bare library beside it: `python -m bench.wire_kafka --bootstrap 127.0.0.1:9092`.

Records carry 12 headers and a value of 200 bytes, in batches of 500, two batches under way. Needs a broker
(`scripts/kafka start`). Interpreter and broker share this machine's cores.
"""

import argparse
import asyncio
import gc
import resource
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median, quantiles

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition as KafkaPartition

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import TopicSpec
from mesh.core.protocol.record import NewRecord, TopicPartition

NAMES = (
    "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject", "content-type",
    "ce_correlationid", "ce_causationid", "ce_meshkind", "ce_meshagent", "ce_meshdepth",
)  # fmt: skip
BATCH = 500
VALUE = b"x" * 200


def record(topic: str, serial: int) -> NewRecord:
    """A record as the mesh writes them: seven to a run, whose id is the key."""
    run = b"018f3c2a-7b1e-7c4d-9a55-%012d" % (serial // 7)
    headers = [(name, run if name.endswith("id") else b"order.placed.%d" % (serial % 7)) for name in NAMES]
    return NewRecord(topic, run, VALUE, headers)


async def appends(send: Callable[[list[NewRecord]], Awaitable[object]], batches: list[list[NewRecord]]) -> str:
    """Records a second, and what each costs this process, in batches, two under way."""
    gc.collect()
    gc.freeze()  # what was prepared for measuring is no part of what is measured
    cpu, begun = _cpu_s(), time.perf_counter()
    under_way: list[asyncio.Future[object]] = []
    for batch in batches:
        under_way.append(asyncio.ensure_future(send(batch)))
        if len(under_way) == 2:
            await under_way.pop(0)
    await asyncio.gather(*under_way)
    return _rate(len(batches) * BATCH, begun, cpu)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _rate(records: int, begun: float, cpu: float) -> str:
    wall_s, cpu_s = time.perf_counter() - begun, _cpu_s() - cpu
    return f"{records / wall_s:>10,.0f}/s  {cpu_s / records * 1e6:>5.1f} µs of CPU each"


async def bare_appends(bootstrap: str, batches: list[list[NewRecord]], topic: str) -> str:
    """The same through `AIOKafkaProducer.send`, idempotent, every acknowledgement awaited."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, max_batch_size=1_048_576)
    await producer.start()
    await producer.partitions_for(topic)

    async def send(batch: list[NewRecord]) -> object:
        futures = [await producer.send(r.topic, r.value, r.key, headers=list(r.headers)) for r in batch]
        return await asyncio.gather(*futures)

    try:
        return await appends(send, batches)
    finally:
        await producer.stop()


async def fetches(log: KafkaLog, topic: str) -> str:
    """Records a second, in batches, from all partitions."""
    bounds = await log.bounds(topic)
    records = left = sum(b.end - b.start for b in bounds.values())
    reader = log.reader({TopicPartition(topic, partition): b.start for partition, b in bounds.items()})
    cpu, begun = _cpu_s(), time.perf_counter()
    while left:
        left -= len(await reader.poll(records_max=BATCH, wait_ms=1_000))
    figure = _rate(records, begun, cpu)
    await reader.close()
    return figure


async def bare_fetches(bootstrap: str, topic: str, partitions: int, records: int) -> str:
    """The same through `AIOKafkaConsumer.getmany`."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    consumer.assign([KafkaPartition(topic, partition) for partition in range(partitions)])
    left, cpu, begun = records, _cpu_s(), time.perf_counter()
    while left:
        left -= sum(map(len, (await consumer.getmany(timeout_ms=1_000, max_records=BATCH)).values()))
    figure = _rate(records, begun, cpu)
    await consumer.stop()
    return figure


async def single_ms(log: KafkaLog, topic: str, times: int) -> list[float]:
    """Milliseconds until one record is acknowledged, nothing else going on."""
    took = []
    for serial in range(times):
        await asyncio.sleep(0.002)
        begun = time.perf_counter()
        await log.append([record(topic, serial)])
        took.append((time.perf_counter() - begun) * 1_000)
    return took


async def arrival_ms(log: KafkaLog, other: KafkaLog, topic: str, times: int) -> list[float]:
    """Milliseconds from the call of `append` on one connection to the record in the hands of a reader on another."""
    reader = other.reader({TopicPartition(topic, p): b.end for p, b in (await log.bounds(topic)).items()})
    took = []
    for serial in range(times):
        poll = asyncio.ensure_future(reader.poll(records_max=10, wait_ms=5_000))
        await asyncio.sleep(0.002)
        begun = time.perf_counter()
        await log.append([record(topic, serial)])
        await poll
        took.append((time.perf_counter() - begun) * 1_000)
    await reader.close()
    return took


def spread(took: Sequence[float]) -> str:
    """`p50 0.21 ms, p99 0.48 ms`."""
    return f"p50 {median(took):.2f} ms, p99 {quantiles(took, n=100)[98]:.2f} ms"


async def main(bootstrap: str, records: int, partitions: int) -> None:
    log, other = (KafkaLog(bootstrap, client_id=f"bench-{n}") for n in range(2))
    await log.start()
    await other.start()
    name = f"bench-{time.time_ns()}"
    await log.create_topics([TopicSpec(f"{name}-{kind}", partitions) for kind in ("ours", "bare", "single")])

    def batches(kind: str) -> list[list[NewRecord]]:
        return [[record(f"{name}-{kind}", at + i) for i in range(BATCH)] for at in range(0, records, BATCH)]

    await appends(log.append, batches("ours")[:20])
    print(f"{records:,} records, {partitions} partitions")
    print(f"append, ours            {await appends(log.append, batches('ours'))}")
    print(f"append, bare send()     {await bare_appends(bootstrap, batches('bare'), f'{name}-bare')}")
    print(f"poll, ours              {await fetches(log, f'{name}-ours')}")
    print(f"poll, bare getmany()    {await bare_fetches(bootstrap, f'{name}-bare', partitions, records)}")
    print(f"append of one record    {spread(await single_ms(log, f'{name}-single', 500))}")
    print(f"append to poll          {spread(await arrival_ms(log, other, f'{name}-single', 500))}")
    await other.close()
    await log.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--partitions", type=int, default=4)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.bootstrap, arguments.records, arguments.partitions))
