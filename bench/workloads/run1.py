"""run1: one-step runs."""

from collections.abc import Sequence

from bench.asking import throughput
from bench.field import Setup, written
from bench.report import Figure
from bench.workloads import Workload

TEXT = written({"echo": "on: bench.ask, emits: bench.answer, lanes: 1024"})


async def run(setup: Setup) -> Sequence[Figure]:
    """Runs a second, and the CPU time of each process."""
    return (await throughput(setup, TEXT, ["orchestrator"], ["worker"])).figures()


WORKLOAD = Workload(
    "run1",
    "one-step orchestrated runs",
    "Requests are published as fast as the log takes them to a mesh of one orchestrator and one worker process; the "
    "figure is runs over the time from the first request to the last outcome, all of them completed.",
    run,
)
