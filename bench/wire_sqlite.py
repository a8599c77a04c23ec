"""What the embedded log does on this machine: `python -m bench.wire_sqlite`.

Appends go through `Log.append`, fetches through `Reader.poll`; records carry 12 headers and a value of 200 bytes.
"""

import argparse
import asyncio
import gc
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

from mesh.core.record import NewRecord, TopicPartition
from mesh.wire.ports import TopicSpec
from mesh.wire.sqlite import SqliteLog

NAMES = (
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_time",
    "ce_subject",
    "content-type",
    "ce_correlationid",
    "ce_causationid",
    "ce_meshkind",
    "ce_meshagent",
    "ce_meshdepth",
)
BATCH = 500
VALUE = b"x" * 200


def record(topic: str, serial: int) -> NewRecord:
    """A record as the mesh writes them: seven to a run, whose id is the key."""
    run = b"018f3c2a-7b1e-7c4d-9a55-%012d" % (serial // 7)
    headers = tuple((name, run if name.endswith("id") else b"order.placed.%d" % (serial % 7)) for name in NAMES)
    return NewRecord(topic, run, VALUE, headers)


async def appends(log: SqliteLog, topic: str, records: int) -> float:
    """Records a second, in batches, two batches under way."""
    batches = [[record(topic, at + i) for i in range(BATCH)] for at in range(0, records, BATCH)]
    gc.freeze()  # what was prepared for measuring is no part of what is measured
    begun = time.perf_counter()
    under_way: list[asyncio.Task[Sequence[object]]] = []
    for batch in batches:
        under_way.append(asyncio.ensure_future(log.append(batch)))
        if len(under_way) == 2:
            await under_way.pop(0)
    await asyncio.gather(*under_way)
    return records / (time.perf_counter() - begun)


async def fetches(log: SqliteLog, topic: str) -> float:
    """Records a second, in batches, from all partitions."""
    bounds = await log.bounds(topic)
    left = sum(b.end - b.start for b in bounds.values())
    records = left
    reader = log.reader({TopicPartition(topic, partition): b.start for partition, b in bounds.items()})
    begun = time.perf_counter()
    while left:
        left -= len(await reader.poll(records_max=BATCH, wait_ms=1_000))
    took = time.perf_counter() - begun
    await reader.close()
    return records / took


async def single_ms(log: SqliteLog, topic: str, times: int) -> list[float]:
    """Milliseconds until one record is acknowledged, nothing else going on."""
    took = []
    for serial in range(times):
        await asyncio.sleep(0.002)
        begun = time.perf_counter()
        await log.append([record(topic, serial)])
        took.append((time.perf_counter() - begun) * 1_000)
    return took


async def wakeup_ms(log: SqliteLog, other: SqliteLog, topic: str, times: int) -> list[float]:
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


async def idle_share(log: SqliteLog, topic: str, members: int, seconds: int) -> float:
    """Share of a core that a process needs for members which wait for records."""
    listeners = [Idle() for _ in range(members)]
    joined = [await log.join(f"idle{number}", [topic], listener) for number, listener in enumerate(listeners)]
    for member, listener in zip(joined, listeners, strict=True):
        await listener.ready.wait()
        member.resume(*member.assignment)
    await asyncio.gather(*(member.poll(records_max=100_000, wait_ms=1) for member in joined))
    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(member.poll(records_max=100, wait_ms=seconds * 1_000) for member in joined))
    share = (time.process_time() - cpu) / (time.perf_counter() - begun)
    for member in joined:
        await member.close()
    return share


class Idle:
    """A listener that has nothing to do."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.ready.set()

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        return


def spread(took: Sequence[float]) -> str:
    """`p50 0.21 ms, p99 0.48 ms`."""
    return f"p50 {median(took):.2f} ms, p99 {quantiles(took, n=100)[98]:.2f} ms"


async def main(records: int, partitions: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = SqliteLog(Path(directory) / "bench.db")
        other = SqliteLog(Path(directory) / "bench.db")
        await log.start()
        await other.start()
        await log.create_topics([TopicSpec("many", partitions), TopicSpec("one", 1), TopicSpec("single", partitions)])
        await log.create_topics([TopicSpec("idle", partitions)])
        print(f"10 members that wait   {await idle_share(log, 'idle', 10, 5):.2%} of a core")
        print(f"append, {partitions} partitions  {await appends(log, 'many', records):>10,.0f}/s")
        print(f"append, 1 partition   {await appends(log, 'one', records):>10,.0f}/s")
        print(f"fetch, {partitions} partitions   {await fetches(log, 'many'):>10,.0f}/s")
        print(f"fetch, 1 partition    {await fetches(log, 'one'):>10,.0f}/s")
        print(f"append of one record   {spread(await single_ms(log, 'single', 1_000))}")
        print(f"append to poll         {spread(await wakeup_ms(log, other, 'single', 1_000))}")
        await other.close()
        await log.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--partitions", type=int, default=8)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.records, arguments.partitions))
