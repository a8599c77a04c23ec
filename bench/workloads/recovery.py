"""recovery: how soon a partition is live again after a kill, and at a hand-over."""

from argparse import Namespace
from collections.abc import Sequence

from bench.field import Setup
from bench.recovery import measure
from bench.report import LESS, Figure
from bench.workloads import Workload

RUNS, RUNS_LONG, LONG_S = 10_000, 100_000, 30.0


async def run(setup: Setup) -> Sequence[Figure]:
    """`bench.recovery` with fewer open runs in a short measuring."""
    runs = RUNS_LONG if setup.seconds >= LONG_S else RUNS
    setup.say(f"{runs:,} open runs")
    found = await measure(Namespace(log=setup.log, runs=runs))
    at = {"open_runs": runs}
    kill, many, few = found["after_kill"], found["hand_over_many"], found["hand_over_few"]
    return [
        Figure("after_kill_s", kill["restore_s"], "s", LESS, at),
        Figure("after_kill_cpu_s", kill["restore_cpu_s"], "s", LESS, at),
        Figure("hand_over_s", many["hand_over_s"], "s", LESS, at),
        Figure("hand_over_s", few["hand_over_s"], "s", LESS, {"open_runs": few["open_runs"]}),
        Figure("loop_still_ms", max(kill["loop_still_ms_max"], many["loop_still_ms_max"]), "ms", LESS, at),
        Figure("checkpoint_bytes_per_run", found["checkpoint_bytes_per_run"], "B", LESS, at),
    ]


WORKLOAD = Workload(
    "recovery",
    "a partition live again after a kill, and handed over",
    "`python -m bench.recovery`: an orchestrator with that many open runs is killed with SIGKILL, and another restores "
    "its partition from the last checkpoint and the tail; then one hands over to another that waits beside it.",
    run,
)
