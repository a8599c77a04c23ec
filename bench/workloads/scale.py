"""scale: more worker processes on work that waits."""

from collections.abc import Sequence

from bench.field import Setup, written
from bench.load import throughput
from bench.report import NONE, Figure
from bench.workloads import Workload
from bench.workloads.io import request

WORKERS = (1, 2, 4, 8)
PARTITIONS = 8
LANES = 16
WAIT_MS = 50
TEXT = written({"wait": f"on: bench.wait, emits: bench.answer, lanes: {LANES}"}, partitions=PARTITIONS)


async def run(setup: Setup) -> Sequence[Figure]:
    """The same mesh with more and more worker processes."""
    found: list[Figure] = []
    for workers in WORKERS:
        setup.say(f"{workers} worker processes")
        asked = await throughput(
            setup,
            TEXT,
            ["orchestrator"],
            *[["worker"]] * workers,
            seconds=setup.seconds / len(WORKERS),
            first=50,
            type="bench.wait",
            payload=lambda n: request(WAIT_MS, n),
        )
        ideal = Figure("ideal_runs_per_s", workers * LANES * 1_000 // WAIT_MS, "runs/s", NONE, limit=True)
        found += [*asked.figures(workers=workers)[:1], ideal._replace(at={"workers": workers})]
    return found


WORKLOAD = Workload(
    "scale",
    "worker processes on I/O-bound work",
    f"Runs whose only agent waits {WAIT_MS} ms, {LANES} at a time in each worker process: runs a second with one, two, "
    "four and eight of them, beside what so many lanes could do if the mesh cost nothing.",
    run,
)
