"""latency: an open loop at fixed rates."""

from collections.abc import Sequence

from bench.field import Setup
from bench.histogram import PERCENTILES, Histogram
from bench.load import burst, open_loop, watching
from bench.report import LESS, Figure, significant
from bench.workloads import Workload
from bench.workloads.run1 import TEXT

RATES = (50, 200, 500)
WARM_RUNS = 500


def figures(took: Histogram, rate: int) -> list[Figure]:
    """Percentiles in milliseconds; the samples stand at the first."""
    at = {"rate_per_s": rate}
    found = [
        Figure(f"p{percent:g}_ms", significant(took.percentile(percent)), "ms", LESS, at) for percent in PERCENTILES
    ]
    found[0] = found[0]._replace(samples=took.pairs())
    return [*found, Figure("max_ms", round(took.max, 2), "ms", LESS, at)]


async def run(setup: Setup) -> Sequence[Figure]:
    """Each rate for its share of the time."""
    found: list[Figure] = []
    services = (["orchestrator"], ["worker"])
    async with setup.field(TEXT) as field, field.up(*services), watching(field) as outcomes:
        await burst(field.mesh, outcomes, WARM_RUNS)
        for rate in RATES:
            setup.say(f"{rate} requests a second")
            took = await open_loop(field.mesh, outcomes, rate=rate, seconds=setup.seconds / len(RATES))
            found += figures(Histogram(took), rate)
    return found


WORKLOAD = Workload(
    "latency",
    "latency of run1 at fixed rates",
    "An open loop: requests are due at a fixed rate whatever comes back, and each is timed from the moment it was due "
    "until its outcome was read (no coordinated omission); percentiles of all of them, at three significant digits.",
    run,
)
