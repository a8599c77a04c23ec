"""run1: one-step runs, from request to outcome, the whole mesh in processes of its own.

    python -m bench.runs                                  embedded
    python -m bench.runs --log kafka://127.0.0.1:9092     Kafka

Throughput: requests are published as fast as the log takes them; the figure is runs over the time from the first
publish to the last outcome. Latency: open loop at a fixed rate, so that a slow answer does not slow the asking down;
from the moment a request was due to be sent until its outcome was read.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.mesh_processes import mesh_up, private_topology
from bench.report import save
from mesh.client import Mesh
from mesh.core.codec import write
from mesh.core.event import Event
from mesh.core.record import NewRecord, TopicPartition
from mesh.settings import Settings
from mesh.wire.ports import Log, Refused
from mesh.wiring import load_topology, open_log, topic_specs

TOPOLOGY = Path(__file__).with_name("topology.yaml")
BATCH = 500


def payload(n: int) -> dict[str, object]:
    """About 200 bytes."""
    return {"id": f"ask-{time.time_ns()}-{n}", "text": "what is the sum of these numbers? " * 4, "numbers": [n, 2, 3]}


class Outcomes:
    """Counts outcomes as they arrive, and when each came."""

    def __init__(self, log: Log, topic: str) -> None:
        self._log, self._topic = log, topic
        self.at: dict[bytes, float] = {}
        self.changed = asyncio.Event()

    async def watch(self) -> None:
        """Reads from the end of the topic for ever."""
        bounds = await self._log.bounds(self._topic)
        reader = self._log.reader({TopicPartition(self._topic, p): b.end for p, b in bounds.items()})
        try:
            while True:
                records = await reader.poll(records_max=5_000, wait_ms=500)
                now = time.perf_counter()
                for record in records:
                    self.at.setdefault(record.key or b"", now)
                self.changed.set()
        finally:
            await reader.close()

    async def until(self, count: int, deadline_s: float) -> None:
        """Returns when `count` different runs have ended."""
        async with asyncio.timeout(deadline_s):
            while len(self.at) < count:
                self.changed.clear()
                await self.changed.wait()


async def send(mesh: Mesh, events: Sequence[Event]) -> None:
    """Publish, without the client's own watch for outcomes: here `Outcomes` is the only reader."""
    records = [NewRecord(mesh.topology.inbox, e.run_id.encode(), e.data, write(e)) for e in events]
    if any(isinstance(verdict, Refused) for verdict in await mesh.log.append(records)):
        raise RuntimeError("the log refused a request")


async def throughput(mesh: Mesh, outcomes: Outcomes, runs: int) -> float:
    """Runs a second."""
    before = len(outcomes.at)
    events = [mesh.request("bench.ask", payload(n)) for n in range(runs)]
    began = time.perf_counter()
    for at in range(0, runs, BATCH):
        await send(mesh, events[at : at + BATCH])
    await outcomes.until(before + runs, 300)
    return runs / (max(outcomes.at.values()) - began)


async def latency(mesh: Mesh, outcomes: Outcomes, *, rate: int, seconds: float) -> dict[str, float]:
    """Percentiles in milliseconds at `rate` requests a second."""
    due: dict[bytes, float] = {}
    began = time.perf_counter() + 0.1
    count = int(rate * seconds)
    before = len(outcomes.at)
    sends: set[asyncio.Task[object]] = set()
    for n in range(count):
        at = began + n / rate
        delay = at - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        event = mesh.request("bench.ask", payload(n))
        due[event.run_id.encode()] = at
        task: asyncio.Task[object] = asyncio.ensure_future(send(mesh, [event]))
        sends.add(task)
        task.add_done_callback(sends.discard)
    await asyncio.gather(*sends)
    await outcomes.until(before + count, 60)
    took = sorted((outcomes.at[run] - at) * 1000 for run, at in due.items())
    return {f"p{q}": round(took[min(len(took) - 1, int(len(took) * q / 100))], 2) for q in (50, 90, 99)} | {
        "max": round(took[-1], 2)
    }


async def measure(arguments: argparse.Namespace) -> dict[str, object]:
    """All figures of one backend."""
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder:
        log_url = arguments.log or f"sqlite:{folder}/mesh.db"
        board = f"sqlite:{folder}/board.db"
        path = str(private_topology(TOPOLOGY, Path(folder), f"-{time.time_ns() % 10**8}"))
        topology = load_topology(path)
        log = open_log(Settings(log=log_url, topology=path), client="bench")
        await log.start()
        await log.create_topics(topic_specs(topology))
        services = [["orchestrator"], ["worker"]] if arguments.processes == 2 else [["orchestrator", "worker"]]
        figures: list[float] = []
        async with mesh_up(services, log=log_url, board=board, topology=path) as children:
            mesh = Mesh(log, topology)
            outcomes = Outcomes(log, topology.outcomes)
            watcher = asyncio.ensure_future(outcomes.watch())
            await throughput(mesh, outcomes, 2_000)
            before = {"client": time.process_time(), **{c.arguments[0]: c.cpu_s() for c in children}}
            for _ in range(arguments.repeat):
                figures.append(await throughput(mesh, outcomes, arguments.runs))
            after = {"client": time.process_time(), **{c.arguments[0]: c.cpu_s() for c in children}}
            slow = await latency(mesh, outcomes, rate=arguments.rate, seconds=arguments.seconds)
            watcher.cancel()
            await asyncio.wait([watcher])
            await mesh.close()
        await log.close()
    figures.sort()
    return {
        "log": "kafka" if arguments.log else "sqlite",
        "processes": arguments.processes,
        "runs": arguments.runs,
        "runs_per_s": round(figures[len(figures) // 2]),
        "runs_per_s_all": [round(f) for f in figures],
        "cpu_us_per_run": {
            name: round((after[name] - before[name]) * 1e6 / (arguments.runs * arguments.repeat), 1) for name in after
        },
        "latency_rate_per_s": arguments.rate,
        "latency_ms": slow,
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
