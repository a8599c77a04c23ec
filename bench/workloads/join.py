"""join: three branches at once, and an agent that needs all of them."""

from collections.abc import Sequence

from bench.field import Setup, written
from bench.load import throughput
from bench.report import Figure
from bench.workloads import Workload

TEXT = written(
    {
        "first": "on: bench.ask, emits: bench.second, lanes: 1024",
        "left": "on: bench.ask, emits: bench.third, lanes: 1024",
        "right": "on: bench.ask, emits: bench.fourth, lanes: 1024",
        "joined": "on: {all: [bench.second, bench.third, bench.fourth]}, emits: bench.answer, lanes: 1024",
    }
)


async def run(setup: Setup) -> Sequence[Figure]:
    """Runs a second, and the CPU time of each process."""
    return (await throughput(setup, TEXT, ["orchestrator"], ["worker"])).figures()


WORKLOAD = Workload(
    "join",
    "fan-out to three agents and a join",
    "As run1, but three agents hear the request and a fourth is asked once it has the answers of all three.",
    run,
)
