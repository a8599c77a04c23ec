"""fan: one request, a hundred tasks, one outcome."""

from collections.abc import Sequence

from bench.field import Setup, written
from bench.load import throughput
from bench.report import Figure, middle
from bench.workloads import Workload

WIDTH = 100
TEXT = written(
    {
        "spread": "on: bench.ask, emits: bench.piece, lanes: 64",
        "work": "on: bench.piece, emits: bench.answer, lanes: 1024",
    },
    limits="deadline: 10m, fanout_max: 100, tasks_max: 128",
)


async def run(setup: Setup) -> Sequence[Figure]:
    """Runs and tasks a second, and the CPU time of each process."""
    asked = await throughput(setup, TEXT, ["orchestrator"], ["worker"], first=3)
    tasks = [rate * (WIDTH + 1) for rate in asked.runs_per_s]
    return [*asked.figures(), middle("tasks_per_s", tasks, "tasks/s")]


WORKLOAD = Workload(
    "fan",
    "fan-out 1 → 100 → 1",
    "As run1, but the first agent emits a hundred events, each of which is a task for another; the run's one outcome "
    "holds the hundred answers.",
    run,
)
