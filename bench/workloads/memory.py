"""memory: a mesh with nothing to do."""

import asyncio
import time
from collections.abc import Sequence

from bench.field import Setup, memory_mib
from bench.load import burst, watching
from bench.report import LESS, Figure, significant
from bench.workloads import Workload
from bench.workloads.run1 import TEXT


async def run(setup: Setup) -> Sequence[Figure]:
    """CPU time and memory of one process with all services."""
    async with setup.field(TEXT) as field, field.up([]) as (process,):
        async with watching(field) as outcomes:
            await burst(field.mesh, outcomes, 100)
        used, began = process.cpu_s(), time.perf_counter()
        await asyncio.sleep(setup.seconds)
        share = (process.cpu_s() - used) / (time.perf_counter() - began)
        memory = memory_mib(process)
    return [
        Figure("idle_core_percent", significant(share * 100), "%", LESS),
        Figure("idle_memory_mib", memory, "MiB", LESS),
    ]


WORKLOAD = Workload(
    "memory",
    "an idle mesh",
    "`mesh up` with all services in one process, after a hundred runs: its share of a core while nothing happens, and "
    "its resident memory.",
    run,
)
