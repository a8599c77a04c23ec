"""Warm up a broker that was just started, before anything is measured on it.

    python -m bench.warming --log kafka://127.0.0.1:9092

In the first half minute its virtual machine compiles hot code on more than one core. A measurement then would measure
the compiler: on two cores the latency is five times as high. Brokers in production run for longer.
"""

import argparse
import asyncio

from bench.field import Setup
from bench.load import burst, open_loop, watching
from bench.workloads.run1 import TEXT

SECONDS = 30.0
RATE = 500
"""Runs a second: many small requests, since the broker's code is compiled by how often it was called."""
RUNS = 20_000
"""And then large ones."""


async def warm(setup: Setup, seconds: float = SECONDS) -> None:
    """One-step runs on this log for so long, then as many at once as the rest of it is good for."""
    services = (["orchestrator"], ["worker"])
    async with setup.field(TEXT) as field, field.up(*services), watching(field) as outcomes:
        await open_loop(field.mesh, outcomes, rate=RATE, seconds=seconds)
        await burst(field.mesh, outcomes, round(RUNS * seconds / SECONDS))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.warming", description="warm up a broker")
    parser.add_argument("--log", required=True, help="kafka://HOST:PORT")
    asyncio.run(warm(Setup(log=parser.parse_args().log)))


if __name__ == "__main__":
    main()
