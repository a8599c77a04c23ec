"""payload: requests from 200 bytes to the most a mesh takes."""

from collections.abc import Sequence
from functools import partial

import orjson

from bench.field import Setup
from bench.load import Payload, ask, throughput
from bench.report import Figure, middle
from bench.workloads import Workload
from bench.workloads.run1 import TEXT

SIZES = (200, 2_048, 20_480, 262_144)


def sized(size: int, n: int) -> Payload:
    """A request of exactly so many bytes of JSON."""
    body = ask(n) | {"text": ""}
    return body | {"text": "x" * (size - len(orjson.dumps(body)))}


async def run(setup: Setup) -> Sequence[Figure]:
    """Runs and megabytes a second at each size."""
    found: list[Figure] = []
    for size in SIZES:
        setup.say(f"{size:,} bytes")
        first = max(10, min(200, 2_000_000 // size))
        asked = await throughput(
            *(setup, TEXT, ["orchestrator"], ["worker"]),
            seconds=setup.seconds / len(SIZES),
            first=first,
            payload=partial(sized, size),
        )
        moved = [rate * size / 1e6 for rate in asked.runs_per_s]
        found += [*asked.figures(bytes=size), middle("mb_per_s", moved, "MB/s", bytes=size)]
    return found


WORKLOAD = Workload(
    "payload",
    "requests of 200 B … 256 KiB",
    "As run1 with requests of different sizes, each copied into the task and validated by the agent; megabytes are "
    "those of the requests.",
    run,
)
