"""run1: one-step runs."""

from collections.abc import Sequence

from bench.ceilings import with_ceilings
from bench.field import Setup, written
from bench.report import Figure
from bench.workloads import Workload

TEXT = written({"echo": "on: bench.ask, emits: bench.answer, lanes: 1024"})


async def run(setup: Setup) -> Sequence[Figure]:
    """Runs a second, the CPU time of each process, and the ceilings."""
    return await with_ceilings(setup, TEXT, "one step", ["orchestrator"], ["worker"])


WORKLOAD = Workload(
    "run1",
    "one-step orchestrated runs",
    "Requests are published as fast as the log takes them to a mesh of one orchestrator and one worker process; the "
    "figure is runs over the time from the first request to the last outcome, all of them completed. Beside it: the "
    "records of how many runs the log takes from a producer that does nothing else (the log alone), and how many runs "
    "one process reads, decides and writes with no log (Python alone).",
    run,
)
