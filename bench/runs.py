"""run1: one-step runs, from request to outcome, the whole mesh in processes of its own.

    python -m bench.runs                                  embedded
    python -m bench.runs --log kafka://127.0.0.1:9092     Kafka

Throughput: requests are published as fast as the log takes them; the figure is runs over the time from the first
publish to the last outcome. Latency: an open loop at a fixed rate, so that a slow answer does not slow the requests
down. It is measured from the time at which a request was due until its outcome was read.
"""

import argparse
import asyncio
import json
import time

from bench.field import Setup, cpu_s
from bench.histogram import Histogram
from bench.load import burst, open_loop, watching
from bench.report import save
from bench.workloads.run1 import TEXT


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """All figures of one backend."""
    setup = Setup(log=arguments.log)
    services = [["orchestrator"], ["worker"]] if arguments.processes == 2 else [["orchestrator", "worker"]]
    async with setup.field(TEXT) as field, field.up(*services) as children, watching(field) as outcomes:
        await burst(field.mesh, outcomes, 2_000)
        before = cpu_s(children) | {"client": time.process_time()}
        rates = [await burst(field.mesh, outcomes, arguments.runs) for _ in range(arguments.repeat)]
        after = cpu_s(children) | {"client": time.process_time()}
        slow = Histogram(await open_loop(field.mesh, outcomes, rate=arguments.rate, seconds=arguments.seconds))
    rates.sort()
    return {
        "log": setup.kind,
        "processes": arguments.processes,
        "runs": arguments.runs,
        "runs_per_s": round(rates[len(rates) // 2]),
        "runs_per_s_all": [round(rate) for rate in rates],
        "cpu_us_per_run": {
            name: round((after[name] - before[name]) * 1e6 / (arguments.runs * arguments.repeat), 1) for name in after
        },
        "latency_rate_per_s": arguments.rate,
        "latency_ms": {f"p{q}": slow.percentile(q) for q in (50, 90, 99)} | {"max": round(slow.max, 2)},
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--log", default="", help="kafka://HOST:PORT; default: an embedded log in a temporary folder")
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--processes", type=int, default=2, choices=(1, 2))
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments))
    print(json.dumps(figures, indent=2))
    save(f"run1-{figures['log']}", figures)


if __name__ == "__main__":
    main()
