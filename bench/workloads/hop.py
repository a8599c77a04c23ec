"""hop: one worker process, and tasks that lie on its topic before it starts."""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise

from bench.agents import Answer, Ask
from bench.ceilings import log_alone as producer_alone
from bench.field import Field, Setup
from bench.kills import records_of
from bench.load import BATCH, ask
from bench.logged import record_bytes
from bench.report import NONE, Figure, middle, significant
from bench.workloads import Workload
from bench.workloads.run1 import TEXT
from mesh.adapters.ports import Appended
from mesh.core.protocol.codec import internal_headers
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import NewRecord, StoredRecord, TopicPartition
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.effects import PublishTask
from mesh.core.state.partition_state import Partition

TASKS_PER_S, TASKS_MIN, TASKS_MAX = 20_000, 1_000, 1_000_000
LOOK_S = 0.01
WINDOWS = 5
DEADLINE_S = 600.0


def tasks(field: Field, count: int) -> list[NewRecord]:
    """Task records as an orchestrator writes them for so many requests."""
    topology = field.topology
    states = [Partition(topology, number=n, partitions=topology.inbox_partitions) for n in range(4)]
    found: list[NewRecord] = []
    for n in range(count):
        event = field.mesh.request("bench.ask", ask(n))
        key = event.run_id.encode()
        number = partition_of(key, topology.inbox_partitions)
        at_ms = time.time_ns() // 1_000_000
        stored = StoredRecord(topology.inbox, number, n, at_ms, key, event.data, tuple(internal_headers(event)))
        found += [record_of(e, topology) for e in states[number].step(stored) if isinstance(e, PublishTask)]
    assert len(found) == count
    return found


async def append(field: Field, records: Sequence[NewRecord]) -> None:
    """All of them, in batches."""
    for at in range(0, len(records), BATCH):
        verdicts = await field.log.append(records[at : at + BATCH])
        assert all(isinstance(verdict, Appended) for verdict in verdicts)


async def answered(field: Field) -> int:
    """Count the records of the inbox."""
    return sum(bounds.end - bounds.start for bounds in (await field.log.bounds(field.topology.inbox)).values())


async def rates(field: Field, count: int) -> list[float]:
    """Answers a second in several windows, from the first that was seen to the last."""
    seen: list[tuple[float, int]] = []
    async with asyncio.timeout(DEADLINE_S):
        while not seen or seen[-1][1] < count:
            found = await answered(field)
            if found and (not seen or found > seen[-1][1]):
                seen.append((time.perf_counter(), found))
            await asyncio.sleep(LOOK_S)
    size = max(1, (len(seen) - 1) // WINDOWS)
    edges = seen[::size]
    return [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(edges)]


def python_alone(count: int = 5_000) -> float:
    """Tasks a second of CPU time of a loop that only validates, sums and encodes."""
    bodies = [Ask.model_validate(ask(n)).model_dump_json().encode() for n in range(count)]
    began = time.process_time()
    for body in bodies:
        found = Ask.model_validate_json(body)
        Answer(id=found.id, total=sum(found.numbers)).model_dump_json().encode()
    return count / (time.process_time() - began)


async def log_alone(field: Field, count: int) -> float:
    """Records a second that one reader takes off the tasks' topic and appends elsewhere, and does nothing with."""
    topic = field.topology.tasks("echo")
    places = {TopicPartition(topic, p): b.start for p, b in (await field.log.bounds(topic)).items()}
    reader = field.log.reader(places)
    done, began = 0, time.perf_counter()
    while done < count:
        records = await reader.poll(records_max=BATCH, wait_ms=200)
        again = [NewRecord(field.topology.outcomes, r.key, r.value, r.headers) for r in records]
        verdicts = await field.log.append(again)
        assert all(isinstance(verdict, Appended) for verdict in verdicts)
        done += len(records)
    took_s = time.perf_counter() - began
    await reader.close()
    return count / took_s


async def run(setup: Setup) -> Sequence[Figure]:
    """Answers a second, beside what the log and Python do alone."""
    count = int(min(TASKS_MAX, max(TASKS_MIN, TASKS_PER_S * setup.seconds)))
    async with setup.field(TEXT) as field:
        setup.say(f"{count:,} tasks are put on the topic")
        asked = tasks(field, count)
        size = round(sum(map(record_bytes, asked)) / count)
        await append(field, asked)
        del asked
        setup.say("the worker works")
        counting = asyncio.ensure_future(rates(field, count))
        async with field.up(["worker"]) as (worker,):
            before, began = await answered(field), worker.cpu_s()  # what its start took is no part of a hop
            found = await counting
            used = worker.cpu_s() - began
        distinct = {record.key for record in await records_of(field.log, field.topology.inbox)}
        assert len(distinct) == count, f"{count - len(distinct)} tasks have no answer"
        setup.say("the log alone")
        ceiling = await log_alone(field, count)
        produced = await producer_alone(field, size)
    cpu_us = significant(used / max(1, count - before) * 1e6)
    spent = [Figure("worker_cpu_us_per_hop", cpu_us, "µs", NONE)] if before < count / 2 else []
    return [
        middle("hops_per_s", found, "hops/s"),
        *spent,
        Figure("log_alone_per_s", significant(ceiling), "records/s", NONE, limit=True),
        Figure(
            *("producer_alone_per_s", significant(produced.records_per_s), "records/s", NONE, {"by": produced.by}),
            limit=True,
        ),
        Figure("python_alone_per_s", significant(python_alone()), "tasks/s", NONE, limit=True),
    ]


WORKLOAD = Workload(
    "hop",
    "consume → validate → handler → publish → commit",
    "Tasks are put on the topic of one agent beforehand, then one worker process starts; answers are counted on the "
    "inbox, from the first that appears to the last, and none may be missing. Beside it: one reader that copies the "
    "same records (the log alone), a producer that appends as many bytes and does nothing else (on Kafka Kafka's own "
    "tool), and a loop that only validates, sums and encodes (Python alone).",
    run,
)
