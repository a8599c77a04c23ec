"""Latency of run1 on Kafka beside the skeleton, in turns.

    python -m bench.peers.latency --log kafka://127.0.0.1:9092 --repeat 5 --seconds 6

An open loop as in the workload latency. The client is the same for both, except that the skeleton's appends and reads
with the library alone. Result: bench/results/skeleton-latency-kafka.json. Needs the environment of the peers.
"""

import argparse
import asyncio
import logging
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from bench.field import Setup, cpu_s
from bench.histogram import Histogram
from bench.load import burst, open_loop, watching
from bench.peers import skeleton_load
from bench.peers.compare import Measured, NotMeasured, alternate
from bench.peers.results import SKELETON, versions
from bench.peers.setup import NotMade, python
from bench.report import LESS, NONE, RESULTS, Figure, Result, middle, save_result
from bench.workloads.run1 import TEXT

OURS: Final = "mesh on Kafka"
WARM_RUNS: Final = 500
RATE: Final = 500
PERCENTS: Final = (50, 99)
SHOWN: Final = (
    ("p50", "ms", "p50_ms", "mesh_p50_times"),
    ("p99", "ms", "p99_ms", "mesh_p99_times"),
    ("cpu_us", "µs", "cpu_us_per_run", "mesh_cpu_times"),
)
"""Field of `Waits`, its unit, its figure, and the figure of the ratio."""


class Waits(NamedTuple):
    """The percentiles of one measurement in ms, and processor time of all processes a run in µs."""

    p50: float
    p99: float
    cpu_us: float

    @classmethod
    def of(cls, took_ms: Sequence[float], used_s: float) -> "Waits":
        """Return the summary of these runs."""
        histogram = Histogram(took_ms)
        p50, p99 = (histogram.percentile(percent) for percent in PERCENTS)
        return cls(p50, p99, used_s * 1e6 / len(took_ms))


async def ours(setup: Setup, rate: float) -> Waits:
    """The mesh: one orchestrator and one worker process. Raises NotMeasured."""
    try:
        async with (
            setup.field(TEXT) as field,
            field.up(["orchestrator"], ["worker"]) as children,
            watching(field) as outcomes,
        ):
            await burst(field.mesh, outcomes, WARM_RUNS)
            began = sum(cpu_s(children).values())
            took = await open_loop(field.mesh, outcomes, rate=rate, seconds=setup.seconds)
            used = sum(cpu_s(children).values()) - began
    except (RuntimeError, TimeoutError) as error:
        raise NotMeasured(str(error) or "its runs did not end in time") from error
    return Waits.of(took, used)


async def theirs(setup: Setup, rate: float) -> Waits:
    """The skeleton. Raises NotMeasured."""
    async with skeleton_load.bare(setup) as side:
        mesh, outcomes = side.field.mesh, side.outcomes
        try:
            await burst(mesh, outcomes, WARM_RUNS, by=side.send)
            began = sum(process.cpu_s() for process in side.processes.values())
            took = await open_loop(mesh, outcomes, rate=rate, seconds=setup.seconds, by=side.send)
            used = sum(process.cpu_s() for process in side.processes.values()) - began
        except (RuntimeError, TimeoutError) as error:
            raise skeleton_load.failure(side, error) from error
    return Waits.of(took, used)


def figures(measured: Measured[Waits], rate: float) -> list[Figure]:
    """The skeleton's figures, ours beside them, and the ratios round by round."""
    mine, other = measured.samples[OURS], measured.samples[SKELETON]
    at = {"rate_per_s": rate}
    found = []
    for name, unit, figure, times in SHOWN:
        a, b = ([getattr(waits, name) for waits in side] for side in (mine, other))
        found += [
            middle(figure, b, unit, LESS, **at),
            middle(f"mesh_{figure}", a, unit, NONE, **at),
            middle(times, [x / y for x, y in zip(a, b, strict=True)], "x", NONE, **at),
        ]
    return found


async def said(name: str, setup: Setup, rate: float) -> Waits:
    """Measure one side, and say what came."""
    waits = await (ours if name == OURS else theirs)(setup, rate)
    print(f"{name}: p50 {waits.p50:.1f} ms, p99 {waits.p99:.1f} ms, {waits.cpu_us:.0f} µs a run", flush=True)
    return waits


def main() -> None:
    """Command line; exit status 1 when a side could not be measured, 2 without the environment of the peers."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers.latency", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--log", required=True, help="kafka://HOST:PORT")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    parser.add_argument("--seconds", type=float, default=6.0, help="a side and round")
    parser.add_argument("--rate", type=int, default=RATE, help="requests a second")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True, help="write the result")
    parser.add_argument("--to", type=Path, default=RESULTS, metavar="FOLDER", help="where; default: bench/results")
    given = parser.parse_args()
    if not given.log.startswith("kafka://"):
        parser.error("--log is kafka://HOST:PORT, as from: scripts/kafka start")
    try:
        python()
    except NotMade as error:
        parser.error(str(error))
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    setup = Setup(log=given.log, seconds=given.seconds)
    sides = {name: partial(said, name, setup, given.rate) for name in (OURS, SKELETON)}
    measured = asyncio.run(alternate(sides, given.repeat))
    for name, reason in measured.failed.items():
        parser.exit(1, f"{name} was not measured: {reason}\n")
    result = Result(
        "latency",
        "latency of run1 at a fixed rate",
        "An open loop on the mesh and on the skeleton in turn; ratios round by round.",
        "kafka",
        figures(measured, given.rate),
        {"rounds": given.repeat, "seconds": given.seconds, "peers": versions()},
        f"python -m bench.peers.latency --log kafka:… --repeat {given.repeat} --seconds {given.seconds:g}",
        SKELETON,
    )
    for figure in result.figures:
        print(f"{figure.name:22} {figure.value:>8} {figure.unit}  {min(figure.samples)} … {max(figure.samples)}")
    if given.save:
        print(save_result(result.body(), given.to))


if __name__ == "__main__":
    main()
