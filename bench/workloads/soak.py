"""soak: memory under a steady load."""

import asyncio
from collections.abc import Sequence

from bench.field import Setup, memory_mib
from bench.load import burst, open_loop, watching
from bench.report import LESS, Figure, significant
from bench.workloads import Workload
from bench.workloads.run1 import TEXT
from mesh.core.state.partition_state import ENDED_OFFSETS_MAX

RATE = 200
SAMPLES = 30
SERVICES = ("orchestrator", "worker")
RECORDS_PER_RUN = 2
"""On the inbox: a request and an answer."""
WARM_SHARE = 300
"""Runs asked for beforehand, for each second of the measuring, until the memory of ended runs is full."""
BURST = 20_000


async def run(setup: Setup) -> Sequence[Figure]:
    """Resident memory of each service, thirty times in the time."""
    sampled: dict[str, list[float]] = {name: [] for name in SERVICES}
    up = [[name] for name in SERVICES]
    async with setup.field(TEXT) as field, field.up(*up) as children, watching(field) as outcomes:
        full = field.topology.inbox_partitions * ENDED_OFFSETS_MAX // RECORDS_PER_RUN
        setup.say("runs end until the orchestrator remembers as many as it may")
        for runs in chunks(min(full, max(10, int(WARM_SHARE * setup.seconds))), BURST):
            await burst(field.mesh, outcomes, runs)
        async with asyncio.TaskGroup() as group:
            group.create_task(open_loop(field.mesh, outcomes, rate=RATE, seconds=setup.seconds))
            for n in range(SAMPLES):
                await asyncio.sleep(setup.seconds / SAMPLES)
                for name, child in zip(SERVICES, children, strict=True):
                    sampled[name].append(memory_mib(child))
                setup.say(f"{n + 1} of {SAMPLES}: " + ", ".join(f"{k} {v[-1]} MiB" for k, v in sampled.items()))
    return [figure for name, mib in sampled.items() for figure in figures(name, mib)]


def chunks(total: int, size: int) -> list[int]:
    """Numbers of at most `size` that make `total`."""
    return [min(size, total - at) for at in range(0, total, size)]


def figures(service: str, mib: Sequence[float]) -> list[Figure]:
    """The memory at the end, and by how much it exceeds that after a third of the time."""
    third, at = mib[len(mib) // 3], {"service": service}
    return [
        Figure("memory_mib", mib[-1], "MiB", LESS, at),
        Figure("growth_percent", significant((mib[-1] / third - 1) * 100), "%", LESS, at),
    ]


WORKLOAD = Workload(
    "soak",
    "memory under a steady load",
    "An open loop of 200 one-step runs a second for the given time; resident memory of orchestrator and worker "
    "at the end, and by how much it grew after the first third of the time. Before it, runs end until the orchestrator "
    "remembers as many ended runs as it may (in twelve minutes or more; fewer in a shorter time).",
    run,
)
