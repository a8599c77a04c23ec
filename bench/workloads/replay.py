"""replay: how fast a recorded log is searched, checked, and decided again under other limits."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from bench.decide import MESHES, played
from bench.field import Setup
from bench.report import Figure, middle, significant
from bench.workloads import Workload
from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Appended, Bounds, Log
from mesh.app.wiring import topic_specs
from mesh.core.protocol.record import NewRecord
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.effects import Effect, Note, Schedule
from mesh.core.state.partition_state import Partition
from mesh.core.topology.limit_words import with_limits
from mesh.core.topology.model import TopicRule, Topology
from mesh.core.verification.verifier import published_topics
from mesh.operations.replay.what_if_runs import what_if_window
from mesh.operations.verification import WHOLE, verify
from mesh.runtime.log_reader import read_batches

RUNS = 2_000
ROUNDS_MIN = 3
BATCH = 500
PUBLISHED = 5
"""Records that a run publishes: three tasks, an egress event, an outcome."""
RATIOS = (
    ("check_records_of_fold", "check_records", "fold"),
    ("what_if_records_of_fold", "what_if_records", "fold"),
    ("check_of_fold", "check", "fold"),
    ("check_of_floor", "check", "floor"),
    ("what_if_of_fold", "what_if", "fold"),
)
"""Name of a figure, and the two rates that it compares."""
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


@dataclass(slots=True)
class Replays:
    """What is measured on one log. Each method returns the number of events of the inbox."""

    log: Log
    mesh: Topology
    inbox: int

    async def search(self) -> int:
        """Look at the key of each record."""
        async with aclosing(read_batches(self.log, self.mesh.inbox, await self.log.bounds(self.mesh.inbox))) as batches:
            found = [sum(record.key == b"nothing" for record in batch) async for batch in batches]
        return self.inbox + sum(found)

    async def fold(self, perform: Callable[[Effect], object] = lambda effect: None) -> int:
        """Decide."""
        state = Partition(self.mesh, number=0, partitions=self.mesh.inbox_partitions)
        async with aclosing(read_batches(self.log, self.mesh.inbox, await self.log.bounds(self.mesh.inbox))) as batches:
            async for batch in batches:
                for record in batch:
                    for effect in state.step(record):
                        perform(effect)
        return self.inbox

    async def floor(self) -> int:
        """Decide, make the records, and read those that were published."""
        await self.fold(lambda effect: isinstance(effect, Note | Schedule) or record_of(effect, self.mesh))
        for topic in published_topics(self.mesh):
            async with aclosing(read_batches(self.log, topic, await self.log.bounds(topic))) as batches:
                async for _ in batches:
                    pass
        return self.inbox

    async def check(self) -> int:
        """Do what `mesh replay --check` does."""
        result = await verify(self.log, self.mesh, SystemClock())
        assert result.report.good, f"{result.first}"
        return self.inbox

    async def what_if(self) -> int:
        """Do what `mesh replay --limit depth_max=2` does."""
        found = await what_if_window(self.log, self.mesh, WHOLE, lambda one: with_limits(one, {"depth_max": 2}))
        assert (found.different, found.unknown) == (RUNS, 0)
        return self.inbox


async def run(setup: Setup) -> Sequence[Figure]:
    """Events of the inbox a second of CPU time: searched, folded, checked, decided again."""
    async with setup.field(TEXT) as field:
        mesh = mesh_of(f"{field.topology.prefix}.replay")
        setup.say(f"{RUNS:,} runs")
        inbox = await fill(field.log, mesh)
        does = Replays(field.log, mesh, inbox)
        modes = {one.__name__: one for one in (does.search, does.fold, does.floor, does.check, does.what_if)}
        rates = await measured(modes, setup.seconds)
    for name, more in (("check", RUNS * PUBLISHED), ("what_if", RUNS)):
        rates[f"{name}_records"] = [rate * (inbox + more) / inbox for rate in rates[name]]
    units = {name: "records/s" if "records" in name else "events/s" for name in rates}
    found = [middle(f"{name}_per_s", samples, units[name]) for name, samples in rates.items()]
    best = {name: max(samples) for name, samples in rates.items()}
    return [*found, *(Figure(name, significant(best[one] / best[other]), "x") for name, one, other in RATIOS)]


async def measured(modes: Mapping[str, Callable[[], Awaitable[int]]], seconds: float) -> dict[str, list[float]]:
    """Records a second of CPU time of each mode, in turns, in several rounds."""
    samples: dict[str, list[float]] = {name: [] for name in modes}
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < ROUNDS_MIN or time.perf_counter() < end:
        rounds += 1
        for name, mode in modes.items():
            began = time.process_time()
            records = await mode()
            samples[name].append(records / (time.process_time() - began))
    return samples


WORKLOAD = Workload(
    "replay",
    "a recorded log searched, checked, decided again",
    f"{RUNS:,} runs of three steps lie on the log with all that followed. In one process, over CPU time, in turns: "
    "events of the inbox searched for a run (search), folded (fold), checked by `mesh replay --check` (check), and "
    "decided again by `mesh replay --limit depth_max=2`, under which every run ends differently (what_if). The check "
    "also reads what was published, and what-if the outcomes: check_records and what_if_records count those records, "
    "too. The floor reads what the check reads, folds the inbox, makes the records and compares nothing.",
    run,
)
