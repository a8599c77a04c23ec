"""Measure the embedded log on this machine: `python -m bench.wire_sqlite`.

Appends go through `Log.append`, fetches through `Reader.poll`; records carry 12 headers and a value of 200 bytes.
"""

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from bench.report import save
from mesh.adapters.ports import TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.core.protocol.record import NewRecord, TopicPartition

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


class Rate(NamedTuple):
    """The best of several rounds: records a second, and microseconds of CPU a record, which depend less on load."""

    per_s: int
    cpu_us: float


def best(rounds: Sequence[Rate]) -> dict[str, float]:
    return max(rounds)._asdict()


def rate(records: int, begun: float, cpu_begun: float) -> Rate:
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
    return Rate(round(records / took), round(cpu / records * 1_000_000, 2))


async def appends(log: SqliteLog, topic: str, records: int) -> Rate:
    """In batches, two batches under way."""
    batches = [[record(topic, at + i) for i in range(BATCH)] for at in range(0, records, BATCH)]
    gc.freeze()  # what was prepared for measuring is no part of what is measured
    begun, cpu = time.perf_counter(), time.process_time()
    under_way: list[asyncio.Task[Sequence[object]]] = []
    for batch in batches:
        under_way.append(asyncio.ensure_future(log.append(batch)))
        if len(under_way) == 2:
            await under_way.pop(0)
    await asyncio.gather(*under_way)
    return rate(records, begun, cpu)


async def fetches(log: SqliteLog, topic: str) -> Rate:
    """In batches, from all partitions."""
    bounds = await log.bounds(topic)
    left = sum(b.end - b.start for b in bounds.values())
    records = left
    reader = log.reader({TopicPartition(topic, partition): b.start for partition, b in bounds.items()})
    begun, cpu = time.perf_counter(), time.process_time()
    while left:
        left -= len(await reader.poll(records_max=BATCH, wait_ms=1_000))
    found = rate(records, begun, cpu)
    await reader.close()
    return found


async def single_ms(log: SqliteLog, topic: str, times: int) -> list[float]:
    """Milliseconds until one record is acknowledged, nothing else going on."""
    took = []
    for serial in range(times):
        await asyncio.sleep(0.002)
        begun = time.perf_counter()
        await log.append([record(topic, serial)])
        took.append((time.perf_counter() - begun) * 1_000)
    return took


async def wakeup_ms(log: SqliteLog, topic: str, times: int) -> list[float]:
    """Milliseconds from the call of `append` here to the record in the hands of a reader in another process."""
    other = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.wire_sqlite", "--read", str(log.file.path), topic),
        stdout=asyncio.subprocess.PIPE,
    )
    assert other.stdout is not None
    await other.stdout.readline()
    took = []
    for serial in range(times):
        await asyncio.sleep(0.002)
        begun = time.monotonic_ns()
        await log.append([record(topic, serial)])
        took.append((int(await other.stdout.readline()) - begun) / 1_000_000)
    other.terminate()
    await other.wait()
    return took


async def read(path: str, topic: str) -> None:
    """The other process: says of each record when it came, on the machine's monotonic clock."""
    log = SqliteLog(path)
    await log.start()
    reader = log.reader({TopicPartition(topic, p): b.end for p, b in (await log.bounds(topic)).items()})
    print("ready", flush=True)
    while True:
        for _ in await reader.poll(records_max=10, wait_ms=60_000):
            print(time.monotonic_ns(), flush=True)


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


def spread(took: Sequence[float]) -> dict[str, float]:
    return {"p50": round(median(took), 2), "p99": round(quantiles(took, n=100)[98], 2)}


async def main(records: int, partitions: int, repeat: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        log = SqliteLog(Path(directory) / "bench.db")
        await log.start()
        names = ("many", "one", "single", "idle")
        await log.create_topics([TopicSpec(name, 1 if name == "one" else partitions) for name in names])
        figures = {
            "partitions": partitions,
            "records": records,
            "idle_share_of_a_core_with_10_members": round(await idle_share(log, "idle", 10, 5), 4),
            "appends": best([await appends(log, "many", records) for _ in range(repeat)]),
            "appends_one_partition": best([await appends(log, "one", records) for _ in range(repeat)]),
            "fetches": best([await fetches(log, "many") for _ in range(repeat)]),
            "fetches_one_partition": best([await fetches(log, "one") for _ in range(repeat)]),
            "append_of_one_record_ms": spread(await single_ms(log, "single", 1_000)),
            "append_to_another_process_ms": spread(await wakeup_ms(log, "single", 1_000)),
        }
        await log.close()
    print(json.dumps(figures, indent=2))
    save("wire-sqlite", figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--read", nargs=2, metavar=("PATH", "TOPIC"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    asyncio.run(
        read(*arguments.read) if arguments.read else main(arguments.records, arguments.partitions, arguments.repeat)
    )
