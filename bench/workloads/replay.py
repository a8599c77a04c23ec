"""replay: how fast a recorded log is searched, checked, and decided again under other limits."""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from bench.decide import MESHES, played
from bench.field import Setup
from bench.report import Figure, middle, significant
from bench.workloads import Workload
from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Appended, Bounds, Log
from mesh.app.wiring import topic_specs
from mesh.core.protocol.record import NewRecord
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.effects import Note, Schedule
from mesh.core.state.partition_state import Partition
from mesh.core.topology.limit_words import with_limits
from mesh.core.topology.model import TopicRule, Topology
from mesh.operations.replay.what_if_runs import what_if_window
from mesh.operations.verification import WHOLE, verify
from mesh.runtime.log_reader import read_batches

RUNS = 2_000
ROUNDS_MIN = 3
BATCH = 500
TEXT = """
mesh: {name: bench, prefix: bench{mark}, inbox: {partitions: 6}}
topics: {bench.asks{mark}: {ingress: bench.ask}, bench.answers{mark}: {egress: bench.answer}}
agents: {echo: {run: "bench.agents:echo", on: bench.ask, emits: bench.answer}}
"""
"""Only its prefix is used: what is replayed is one of the meshes of `bench.decide`."""


def mesh_of(prefix: str) -> Topology:
    """The mesh of three steps, with topics of its own."""
    mesh = MESHES["three steps"]
    rule = TopicRule(f"{prefix}.decided", egress=tuple(mesh.egress))
    ingress = TopicRule(f"{prefix}.placed", ingress="order.placed")
    topics, egress = {rule.name: rule, ingress.name: ingress}, dict.fromkeys(mesh.egress, rule)
    return replace(mesh, prefix=prefix, topics=topics, egress=egress, ingress={"order.placed": ingress})


async def fill(log: Log, mesh: Topology) -> int:
    """Write the inbox of many runs and all that follows from it, as services would. Returns the runs' inbox records."""
    await log.create_topics(topic_specs(mesh))
    state = Partition(mesh, number=0, partitions=mesh.inbox_partitions)
    inbox = played(mesh, RUNS)
    for first in range(0, len(inbox), BATCH):
        records = [NewRecord(mesh.inbox, r.key, r.value, r.headers, 0) for r in inbox[first : first + BATCH]]
        await appended(log, records)
        span = {0: Bounds(first, first + len(records))}
        follows: list[NewRecord] = []
        async with aclosing(read_batches(log, mesh.inbox, span)) as batches:
            async for batch in batches:
                effects = [effect for record in batch for effect in state.step(record)]
                follows += [record_of(effect, mesh) for effect in effects if not isinstance(effect, Note | Schedule)]
        await appended(log, follows)
    return len(inbox)


async def appended(log: Log, records: Sequence[NewRecord]) -> None:
    """Append records, none of which may be refused."""
    assert all(isinstance(verdict, Appended) for verdict in await log.append(records)), "the log refused a record"


async def run(setup: Setup) -> Sequence[Figure]:
    """Records a second of CPU time: searched, folded, checked, decided again."""
    async with setup.field(TEXT) as field:
        mesh, log = mesh_of(f"{field.topology.prefix}.replay"), field.log
        setup.say(f"{RUNS:,} runs")
        inbox = await fill(log, mesh)

        async def search() -> int:
            found = 0
            async with aclosing(read_batches(log, mesh.inbox, await log.bounds(mesh.inbox))) as batches:
                async for batch in batches:
                    found += sum(record.key == b"nothing" for record in batch)
            return inbox + found

        async def fold() -> int:
            state = Partition(mesh, number=0, partitions=mesh.inbox_partitions)
            async with aclosing(read_batches(log, mesh.inbox, await log.bounds(mesh.inbox))) as batches:
                async for batch in batches:
                    for record in batch:
                        state.step(record)
            return inbox

        async def check() -> int:
            result = await verify(log, mesh, SystemClock())
            assert result.report.good, f"{result.first}"
            return sum(result.report.records.values())

        async def what_if() -> int:
            seen = 0

            def read(records: int, total: int) -> None:
                nonlocal seen
                seen = records

            found = await what_if_window(
                log, mesh, WHOLE, lambda recorded: with_limits(recorded, {"depth_max": 2}), read=read
            )
            assert (found.different, found.unknown) == (RUNS, 0)
            return seen

        modes = {"search": search, "fold": fold, "check": check, "what_if": what_if}
        rates = {name: await measured(mode, setup.seconds / len(modes)) for name, mode in modes.items()}
    found = [middle(f"{name}_records_per_s", samples, "records/s") for name, samples in rates.items()]
    best = {name: max(samples) for name, samples in rates.items()}
    found += [Figure(f"{name}_of_fold", significant(best[name] / best["fold"]), "x") for name in ("check", "what_if")]
    return found


async def measured(mode: Callable[[], Awaitable[int]], seconds: float) -> list[float]:
    """Records a second of CPU time, in several rounds."""
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while len(samples) < ROUNDS_MIN or time.perf_counter() < end:
        began = time.process_time()
        records = await mode()
        samples.append(records / (time.process_time() - began))
    return samples


WORKLOAD = Workload(
    "replay",
    "a recorded log searched, checked, decided again",
    f"{RUNS:,} runs of three steps lie on the log with all that followed. In one process, records read over CPU time: "
    "searching the inbox for a run (search), folding it (fold), `mesh replay --check` of everything (check), and "
    "`mesh replay --limit depth_max=2`, under which every run ends differently (what_if).",
    run,
)
