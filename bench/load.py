"""Request runs and watch their outcomes: bursts for throughput, an open loop for latency."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from bench.field import Field, Setup, cpu_s
from bench.logged import Logged, logged, tally
from bench.metronome import beats
from bench.report import NONE, Figure, middle, significant
from mesh.adapters.ports import Log, Refused
from mesh.app.process import tune_garbage_collector
from mesh.client import Mesh
from mesh.core.protocol.codec import internal_headers
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import NewRecord, Record, TopicPartition

BATCH = 500
COMPLETED = b'"ending":"completed"'
"""In the body of an outcome. Bodies are at hand; headers would be unpacked for this alone."""
ROUNDS = 5
RUNS_MIN, RUNS_MAX = 10, 100_000
DEADLINE_S = 300.0

Payload = dict[str, object]


def ask(n: int) -> Payload:
    """About 200 bytes."""
    return {"id": f"ask-{time.time_ns()}-{n}", "text": "what is the sum of these numbers? " * 4, "numbers": [n, 2, 3]}


class Outcomes:
    """A counter of outcomes with their times of arrival."""

    def __init__(self, log: Log, topic: str) -> None:
        self._log, self._topic = log, topic
        self.at: dict[bytes, float] = {}
        self.changed = asyncio.Event()
        self.incomplete = 0
        """Number of outcomes that are not completions; figures made of them would be wrong."""

    async def watch(self) -> None:
        """Read from the end of the topic until it is cancelled."""
        bounds = await self._log.bounds(self._topic)
        reader = self._log.reader({TopicPartition(self._topic, p): b.end for p, b in bounds.items()})
        try:
            while True:
                records = await reader.poll(records_max=5_000, wait_ms=500)
                self.count(records, time.perf_counter())
        finally:
            await reader.close()

    def count(self, records: Sequence[Record], now: float) -> None:
        """Count outcomes that were read at this time of `time.perf_counter`."""
        for record in records:
            self.at.setdefault(record.key or b"", now)
            if COMPLETED not in (record.value or b""):
                self.incomplete += 1
        self.changed.set()

    async def until(self, count: int, deadline_s: float) -> None:
        """Return when `count` different runs have ended. Raises TimeoutError, and RuntimeError when a run did not
        complete."""
        async with asyncio.timeout(deadline_s):
            while len(self.at) < count:
                self.changed.clear()
                await self.changed.wait()
        if self.incomplete:
            raise RuntimeError(f"{self.incomplete} runs ended otherwise than completed")


async def send(mesh: Mesh, events: Sequence[Event]) -> None:
    """Publish, without the client's own watch for outcomes: here `Outcomes` is the only reader."""
    records = [NewRecord(mesh.topology.inbox, e.run_id.encode(), e.data, internal_headers(e)) for e in events]
    if any(isinstance(verdict, Refused) for verdict in await mesh.log.append(records)):
        raise RuntimeError("the log refused a request")


Send = Callable[[Mesh, Sequence[Event]], Coroutine[Any, Any, None]]
"""How requests are published."""


@asynccontextmanager
async def watching(field: Field | Outcomes) -> AsyncIterator[Outcomes]:
    """Count outcomes from now on, by a counter of this field or this one; an error of the watch is raised at the
    end."""
    outcomes = Outcomes(field.log, field.topology.outcomes) if isinstance(field, Field) else field
    watcher = asyncio.ensure_future(outcomes.watch())
    try:
        yield outcomes
    finally:
        watcher.cancel()
        await asyncio.wait([watcher])
        if not watcher.cancelled():
            watcher.result()


async def burst(
    mesh: Mesh,
    outcomes: Outcomes,
    runs: int,
    *,
    type: str = "bench.ask",
    payload: Callable[[int], Payload] = ask,
    by: Send = send,
) -> float:
    """Return the runs a second, from the first request to the last outcome, with requests as fast as the log takes
    them."""
    before = len(outcomes.at)
    events = [mesh.request(type, payload(n)) for n in range(runs)]
    began = time.perf_counter()
    for at in range(0, runs, BATCH):
        await by(mesh, events[at : at + BATCH])
    await outcomes.until(before + runs, DEADLINE_S)
    return runs / (max(outcomes.at.values()) - began)


class Asked(NamedTuple):
    """The figures of several bursts."""

    runs_per_s: list[float]
    runs: int
    """Runs of all measured bursts."""
    cpu_us_per_run: dict[str, float]
    log: Logged

    def figures(self, **at: Any) -> list[Figure]:
        """As figures, beside the speed the CPU time of each process, and what a run leaves on the log."""
        used = [
            Figure(f"{name}_cpu_us_per_run", round(us, 1), "µs", NONE, at) for name, us in self.cpu_us_per_run.items()
        ]
        if self.log.broker_us_per_run is not None:
            used.append(Figure("broker_cpu_us_per_run", round(self.log.broker_us_per_run, 1), "µs", NONE, at))
        left = [
            Figure("records_per_run", significant(self.log.records_per_run), "records", NONE, at),
            Figure("bytes_per_run", significant(self.log.bytes_per_run), "B", NONE, at),
        ]
        return [middle("runs_per_s", self.runs_per_s, "runs/s", **at), *used, *left]


async def throughput(
    setup: Setup,
    text: str,
    *services: Sequence[str],
    seconds: float | None = None,
    first: int = 200,
    type: str = "bench.ask",
    payload: Callable[[int], Payload] = ask,
) -> Asked:
    """Start a mesh of this text, and measure `bursts` on it."""
    seconds = setup.seconds if seconds is None else seconds
    async with setup.field(text) as field, field.up(*services) as children, watching(field) as outcomes:

        def used() -> dict[str, float]:
            return cpu_s(children) | {"client": time.process_time()}

        setup = replace(setup, seconds=seconds)
        return await bursts(setup, field, outcomes, used, first=first, type=type, payload=payload)


async def bursts(
    setup: Setup,
    field: Field,
    outcomes: Outcomes,
    used: Callable[[], dict[str, float]],
    *,
    first: int = 200,
    type: str = "bench.ask",
    payload: Callable[[int], Payload] = ask,
    by: Send = send,
) -> Asked:
    """Measure bursts that together take about `setup.seconds`. `used`: processor time of each process so far. `first`:
    runs of the burst that warms the processes up, and of the one that estimates their speed."""

    async def one(runs: int) -> float:
        return await burst(field.mesh, outcomes, runs, type=type, payload=payload, by=by)

    await one(first)
    rate = await one(first)
    runs = max(min(first, RUNS_MIN), min(RUNS_MAX, int(rate * setup.seconds / ROUNDS)))
    setup.say(f"{ROUNDS} times {runs:,} runs")
    begun, before = await tally(field), used()
    rates = [await one(runs) for _ in range(ROUNDS)]
    after = used()
    left = await logged(field, begun, await tally(field), runs * ROUNDS)
    each = {name: (after[name] - before[name]) * 1e6 / (runs * ROUNDS) for name in after}
    return Asked(rates, runs * ROUNDS, each, left)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect the garbage of this process now, and inside the block as rarely as a service does.

    With Python's defaults a full collection stops the client for 77 ms. At 500 requests a second that delays two runs
    of a hundred, and no service had any part in it.
    """
    before = gc.get_threshold()
    tune_garbage_collector()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def open_loop(
    mesh: Mesh,
    outcomes: Outcomes,
    *,
    rate: float,
    seconds: float,
    type: str = "bench.ask",
    payload: Callable[[int], Payload] = ask,
    by: Send = send,
) -> list[float]:
    """Return the milliseconds of each run at `rate` requests a second, from the time at which its request was due.

    A slow answer does not slow the requests down, and a late request counts (no coordinated omission).
    """
    due: dict[bytes, float] = {}
    count = max(1, int(rate * seconds))
    before = len(outcomes.at)
    with rare_collections():
        began = time.perf_counter() + 0.1
        async with asyncio.TaskGroup() as group, aclosing(beats(began, rate, count)) as times:
            n = 0
            async for at in times:
                event = mesh.request(type, payload(n))
                due[event.run_id.encode()] = at
                group.create_task(by(mesh, [event]))
                n += 1
        await outcomes.until(before + count, DEADLINE_S)
    return [(outcomes.at[run] - at) * 1_000 for run, at in due.items()]
