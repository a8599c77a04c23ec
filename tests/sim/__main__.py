"""Simulate many seeds, or one again: `python -m tests.sim --seeds 100000`, `python -m tests.sim --seed 17 --story`."""

import argparse
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from time import perf_counter

from tests.sim.planted import PLANTED
from tests.sim.run import Patch, Result, command, narrowed, run, smaller

CHUNK = 50


def main() -> int:
    """Exit code 0: nothing was found; 1: a seed fails, and how to repeat it has been printed."""
    options = _options()
    patch = PLANTED[options.planted].patch if options.planted else nullcontext
    if options.seed is not None:
        plan = narrowed(options.seed, faults=options.faults, calm=options.calm, requests=options.requests)
        result = run(plan, story=options.story, patch=patch)
        print("\n".join(result.story))
        return _report(result, patch, options.planted, shrink=not options.as_it_is)
    if options.traces:
        for seed in range(options.first, options.first + options.seeds):
            print(seed, run(narrowed(seed)).trace)
        return 0
    begun = perf_counter()
    seeds = range(options.first, options.first + options.seeds)
    runs = done = 0
    for found in _results(seeds, options.planted, options.jobs):
        if isinstance(found, Result):
            print(f"seed {found.plan.seed} fails")
            return _report(found, patch, options.planted, shrink=True)
        runs += found
        done += CHUNK
        if done % 1_000 == 0:
            _say(min(done, len(seeds)), runs, perf_counter() - begun)
    _say(len(seeds), runs, perf_counter() - begun)
    return 0


def _say(seeds: int, runs: int, took_s: float) -> None:
    print(
        f"{seeds} seeds, {runs} runs, none fails; {seeds / took_s:.1f} seeds/s, {runs / took_s:.0f} runs/s", flush=True
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many seeds to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--faults", default="", help="with --seed: only these faults, by number, or none")
    parser.add_argument("--calm", default="", help="with --seed: these knobs at rest")
    parser.add_argument("--requests", type=int, default=0, help="with --seed: so many requests")
    parser.add_argument("--planted", default="", choices=["", *PLANTED], help="with this bug planted")
    parser.add_argument("--story", action="store_true", help="with --seed: print everything that happens")
    parser.add_argument("--traces", action="store_true", help="print the hash of what happened, seed by seed")
    parser.add_argument("--as-it-is", action="store_true", help="with --seed: do not look for a smaller plan")
    return parser.parse_args()


def _results(seeds: range, planted: str, jobs: int) -> Iterator[Result | int]:
    """Chunk by chunk: how many runs went well, or the first result that failed."""
    chunks = [seeds[at : at + CHUNK] for at in range(0, len(seeds), CHUNK)]
    if jobs == 1:
        for chunk in chunks:
            yield _chunk(chunk, planted)
        return
    with ProcessPoolExecutor(jobs) as pool:
        for found in pool.map(_chunk, chunks, [planted] * len(chunks)):
            yield found
            if isinstance(found, Result):
                pool.shutdown(cancel_futures=True)


def _chunk(seeds: range, planted: str) -> Result | int:
    patch = PLANTED[planted].patch if planted else nullcontext
    runs = 0
    for seed in seeds:
        result = run(narrowed(seed), patch=patch)
        if result.violations:
            return result
        runs += result.runs
    return runs


def _report(result: Result, patch: Patch, planted: str, *, shrink: bool) -> int:
    plan = result.plan
    print(f"seed {plan.seed}: {len(result.violations)} violations, trace {result.trace}, {result.runs} runs")
    if not result.violations:
        return 0
    if shrink:
        plan = smaller(plan, patch=patch)
        result = run(plan, patch=patch)
    print("\n".join(f"  {text}" for text in result.violations[:10]))
    print(f"mesh {plan.mesh}, {plan.partitions} partitions, {plan.requests} requests, processes:")
    print(
        "\n".join(f"  {n}: {' '.join(shape.services)} {' '.join(shape.agents)}" for n, shape in enumerate(plan.shapes))
    )
    print(f"faults that it takes ({len(plan.faults)} of {len(narrowed(plan.seed).faults)}):")
    print("\n".join(f"  {fault}" for fault in plan.faults) or "  none")
    print(f"again: {command(plan, planted)} --as-it-is --story")
    return 1


if __name__ == "__main__":
    sys.exit(main())
