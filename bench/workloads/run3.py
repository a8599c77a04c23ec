"""run3: pipelines of three steps."""

from collections.abc import Sequence

from bench.ceilings import with_ceilings
from bench.field import Setup, written
from bench.report import Figure
from bench.workloads import Workload

TEXT = written(
    {
        "first": "on: bench.ask, emits: bench.second, lanes: 1024",
        "second": "on: bench.second, emits: bench.third, lanes: 1024",
        "third": "on: bench.third, emits: bench.answer, lanes: 1024",
    }
)


async def run(setup: Setup) -> Sequence[Figure]:
    """Runs a second, the CPU time of each process, and the ceilings."""
    return await with_ceilings(setup, TEXT, "three steps", ["orchestrator"], ["worker"])


WORKLOAD = Workload(
    "run3",
    "orchestrated runs of three steps",
    "As run1, but three agents one after the other, each handed what the one before it emitted.",
    run,
)
