"""io: agents that wait, as those do which ask a model or a service."""

import time
from collections.abc import Sequence

from bench.field import Setup, memory_mib, written
from bench.histogram import Histogram
from bench.load import Payload, burst, open_loop, watching
from bench.report import LESS, NONE, Figure, significant
from bench.workloads import Workload

WAITS_MS = (5, 100, 1_000)
RATE = 20
AT_ONCE, AT_ONCE_LONG, LONG_S = 1_000, 10_000, 5.0
"""Tasks that wait at the same time: fewer in a short measuring."""
EACH_MS = 1
"""A task waits so long for each that waits beside it: the last one begins long before the first one ends."""
TEXT = written({"wait": "on: bench.wait, emits: bench.answer, lanes: 20000"})


def request(wait_ms: int, n: int) -> Payload:
    """A request for so much time."""
    return {"id": f"wait-{time.time_ns()}-{n}", "wait_ms": wait_ms}


async def run(setup: Setup) -> Sequence[Figure]:
    """Measure the time that the mesh adds to each wait, and the number of waits in one worker."""
    found: list[Figure] = []
    services = (["orchestrator"], ["worker"])
    async with setup.field(TEXT) as field, field.up(*services) as children, watching(field) as outcomes:
        await burst(field.mesh, outcomes, 100, type="bench.wait", payload=lambda n: request(1, n))
        for wait_ms in WAITS_MS:
            setup.say(f"agents that wait {wait_ms:,} ms")
            seconds = setup.seconds / (len(WAITS_MS) + 1)
            took = await open_loop(
                *(field.mesh, outcomes),
                rate=RATE,
                seconds=seconds,
                type="bench.wait",
                payload=lambda n, ms=wait_ms: request(ms, n),  # type: ignore[misc]  # the default binds the loop's value
            )
            added = Histogram(max(0.0, ms - wait_ms) for ms in took)
            added_ms = added.percentile(50)
            at = {"wait_ms": wait_ms}
            found += [
                Figure("added_ms", significant(added_ms), "ms", LESS, at, added.pairs()),
                Figure("added_percent", significant(added_ms / wait_ms * 100), "%", LESS, at),
            ]
        tasks = AT_ONCE_LONG if setup.seconds >= LONG_S else AT_ONCE
        setup.say(f"{tasks:,} at once")
        wait_ms = tasks * EACH_MS
        rate = await burst(field.mesh, outcomes, tasks, type="bench.wait", payload=lambda n: request(wait_ms, n))
        found += at_once(tasks, tasks / rate, memory_mib(children[1], "VmHWM"))
    return found


def at_once(tasks: int, took_s: float, memory: float) -> list[Figure]:
    """The figures of many waits at the same time; ideal is one wait and nothing else. Below twice the ideal, the last
    one had begun before the first one ended."""
    wait_ms = tasks * EACH_MS
    at = {"tasks": tasks, "wait_ms": wait_ms}
    return [
        Figure("took_of_ideal", significant(took_s * 1_000 / wait_ms), "x", LESS, at),
        Figure("worker_memory_mib", memory, "MiB", LESS, at),
        Figure("tasks_at_once", tasks, "tasks", NONE, at),
    ]


WORKLOAD = Workload(
    "io",
    "agents that wait 5 ms, 100 ms, 1 s",
    "Runs whose only agent waits are asked for at 20 a second: what the median takes beyond the wait is what the mesh "
    "adds. Then 10,000 that wait ten seconds are asked for at once (below `--for 5s` 1,000 that wait one): how "
    "long all of them take, as a multiple of one wait, and the worker's memory at its peak.",
    run,
)
