"""Measure the time to restore a partition: `python -m bench.recovery`, `python -m bench.recovery --log
kafka://127.0.0.1:9092`.

One inbox partition. An orchestrator in a process of its own (`mesh up orchestrator`) gets 100,000 runs whose tasks have
no worker. It is killed with SIGKILL when it has committed them, and leaves its last checkpoint and the tail since.
Then, in this process:

    after a kill    from the committed offset's note to the live partition: load the checkpoint, fold the tail.
    full            the same from a checkpoint of all runs and no tail, as a graceful stop leaves it.
    hand-over       from the stop of one orchestrator to the live partition of another that waits.

Each figure comes with the processor time used (for a hand-over of both processes), since a busy machine changes that
less. It also comes with the longest time for which the event loop was blocked, since heartbeats wait for that long.

The hand-over is measured three times: with few changes since the last checkpoint; with almost as many changes of
different runs as cause another checkpoint; and with few open runs. The size of a checkpoint is that on the log,
compressed. Memory is that of a run that waits for its only task, after its request and after a restore.
"""

import argparse
import asyncio
import gc
import json
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bench.mesh_processes import mesh_up
from bench.report import save
from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Appended, Commit, Log
from mesh.app.process import tune_garbage_collector
from mesh.app.wiring import load_topology, open_log, topic_specs
from mesh.core.protocol.codec import internal_headers, plain_headers
from mesh.core.protocol.event import CANCELLED, REQUESTED, Event, run_id_of
from mesh.core.protocol.record import NewRecord, StoredRecord, TopicPartition
from mesh.core.state.checkpoint import CheckpointLoader, CommitNote, Snapshot, read_note
from mesh.core.state.partition_state import Partition
from mesh.core.topology.model import Topology
from mesh.runtime.checkpoint_manager import COSTS
from mesh.services.orchestrator import Orchestrator
from mesh.settings import Settings

BATCH = 2_000
FEW = 1_000
TEXT = """
mesh: {{name: bench, prefix: recovery{mark}, inbox: {{partitions: 1}}, limits: {{deadline: 2h}}}}
topics:
  recovery.asks{mark}: {{ingress: bench.ask, id: id, partitions: 1}}
  recovery.answers{mark}: {{egress: bench.answer, partitions: 1}}
agents:
  echo: {{run: "bench.agents:echo", on: bench.ask, emits: bench.answer}}
"""
PAYLOAD = b'{"id":"ask-1","text":"' + b"what is the sum of these numbers? " * 4 + b'","numbers":[1,2,3]}'


class Watched(Orchestrator):
    """Notes how long each restore took, and how long the event loop stood still meanwhile."""

    def __init__(self, log: Log, topology: Topology) -> None:
        super().__init__(log, topology, SystemClock(), session_timeout_ms=6_000)
        self.restored_s = self.cpu_s = self.still_s = self.live_at = 0.0

    async def restore(self, partition: TopicPartition, commit: Commit | None) -> int | None:
        """As it is, with a watch beside it."""
        watch = asyncio.create_task(self._watch())
        began, used = time.perf_counter(), time.process_time()
        start = await super().restore(partition, commit)
        self.live_at = time.perf_counter()
        self.restored_s, self.cpu_s = self.live_at - began, time.process_time() - used
        watch.cancel()
        return start

    async def _watch(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.still_s, last = max(self.still_s, now - last), now


class Live:
    """An orchestrator that works, until `stop`."""

    def __init__(self, log: Log, topology: Topology) -> None:
        self.service = Watched(log, topology)
        self._stop = asyncio.Event()
        self._running = asyncio.create_task(self.service.run(self._stop))

    async def ready(self) -> None:
        """Live, or why not."""
        waiting = asyncio.create_task(self.service.ready.wait())
        await asyncio.wait([waiting, self._running], return_when=asyncio.FIRST_COMPLETED)
        if self._running.done():
            await self._running

    async def stop(self) -> None:
        """Gracefully."""
        self._stop.set()
        await self._running


def record(topology: Topology, n: int, kind: str, mark: str = "") -> NewRecord:
    """A request of run `n`, or its cancellation. `mark`: another request of the same run."""
    id = f"ask-{n:09d}"
    event = Event(
        f"{id}{mark}" if kind == REQUESTED else f"{id}:{kind}",
        "/bench",
        "bench.ask",
        kind,
        run_id_of("/bench", id),
        PAYLOAD,
        subject=id,
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    return NewRecord(topology.inbox, event.run_id.encode(), event.data, internal_headers(event))


async def append(log: Log, topology: Topology, runs: range, kind: str, mark: str = "") -> None:
    """One such record a run, and wait until an orchestrator has committed them."""
    for at in range(runs.start, runs.stop, BATCH):
        batch = [record(topology, n, kind, mark) for n in range(at, min(at + BATCH, runs.stop))]
        assert all(isinstance(verdict, Appended) for verdict in await log.append(batch))
    async with asyncio.timeout(300):
        while (await place(log, topology))[0] < (await log.bounds(topology.inbox))[0].end:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def place(log: Log, topology: Topology) -> tuple[int, CommitNote]:
    """Return the committed offset of the orchestrators and its metadata."""
    commits = await log.committed(f"{topology.prefix}.orchestrator", topology.inbox)
    if 0 not in commits:
        return -1, CommitNote("", 0)
    return commits[0].offset, read_note(commits[0].metadata)


async def checkpoint_bytes(log: Log, topology: Topology, note: CommitNote) -> int:
    """Return the bytes of the records of a checkpoint."""
    size = 0
    for piece in note.checkpoint:
        reader = log.reader({TopicPartition(topology.checkpoints, 0): piece.first})
        while reader.position(TopicPartition(topology.checkpoints, 0)) <= piece.last:
            records = await reader.poll(records_max=100, wait_ms=500)
            size += sum(len(one.value or b"") for one in records if one.offset <= piece.last)
        await reader.close()
    return size


def memory(topology: Topology, runs: int = 5_000) -> dict[str, int]:
    """Bytes of an open run, as it was opened and as it was loaded; traced: with a traceparent beside it."""
    found = {}
    for mark, without in (("", "traceparent"), ("_traced", "")):
        new = [record(topology, n, REQUESTED) for n in range(runs)]
        inbox = [
            StoredRecord(
                one.topic, 0, n, n, one.key, one.value, [h for h in plain_headers(one.headers) if h[0] != without]
            )
            for n, one in enumerate(new)
        ]
        found[f"open_run{mark}_bytes"], state = _grown(partial(_folded, topology, inbox))
        chunks = list(Snapshot(state).chunks())
        found[f"restored_run{mark}_bytes"], _ = _grown(partial(_loaded, topology, chunks))
    return {name: size // runs for name, size in found.items()}


def _folded(topology: Topology, inbox: list[StoredRecord]) -> Partition:
    state = Partition(topology, number=0, partitions=1)
    for stored in inbox:
        state.step(stored)
    return state


def _loaded(topology: Topology, chunks: list[bytes]) -> Partition:
    loading = CheckpointLoader()
    for chunk in chunks:
        loading.feed(chunk)
    return loading.partition(topology)


def _grown(make: Callable[[], Partition]) -> tuple[int, Partition]:
    make()  # what is made once and kept is no part of it
    gc.collect()
    tracemalloc.start()
    state = make()
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return grown, state


async def killed(log: Log, topology: Topology, urls: dict[str, str], runs: int) -> dict[str, Any]:
    """Fill, kill, restore; leaves the mesh stopped gracefully."""
    async with mesh_up([["orchestrator"]], **urls, environ={"MESH_SESSION_TIMEOUT_MS": "6000"}) as (child,):
        await append(log, topology, range(runs), REQUESTED)
        child.kill()
    at, note = await place(log, topology)
    successor = Live(log, topology)
    await successor.ready()
    open_runs = len(successor.service._states[TopicPartition(topology.inbox, 0)].runs)
    assert open_runs == runs, open_runs
    await successor.stop()
    return {
        "from_checkpoint_at": note.offset,
        "of_pieces": len(note.checkpoint),
        "tail_records": at - note.offset,
        "restore_s": round(successor.service.restored_s, 2),
        "restore_cpu_s": round(successor.service.cpu_s, 2),
        "loop_still_ms_max": round(successor.service.still_s * 1_000),
    }


async def handed_over(log: Log, topology: Topology, touched: int = 1) -> dict[str, Any]:
    """Stop one while another waits: from the stop signal to the live partition. `touched`: runs, since the last
    checkpoint."""
    first = Live(log, topology)
    await first.ready()
    second = Live(log, topology)
    await second.ready()
    await append(log, topology, range(touched), REQUESTED, f"-{time.time_ns()}")
    owner, successor = (first, second) if first.service._states else (second, first)
    began, used = time.perf_counter(), time.process_time()
    await owner.stop()
    async with asyncio.timeout(60):
        while not successor.service._states:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
    took_s, cpu_s = successor.service.live_at - began, time.process_time() - used
    at, note = await place(log, topology)
    figures = {
        "open_runs": len(successor.service._states[TopicPartition(topology.inbox, 0)].runs),
        "ended_runs": len(successor.service._states[TopicPartition(topology.inbox, 0)].ended),
        "left_to_fold": at - note.offset,
        "touched_runs": touched,
        "hand_over_s": round(took_s, 2),
        "hand_over_cpu_s": round(cpu_s, 2),
        "of_it_restore_s": round(successor.service.restored_s, 2),
        "loop_still_ms_max": round(successor.service.still_s * 1_000),
    }
    await successor.stop()
    return figures


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one backend."""
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as folder:
        path = Path(folder) / "topics.yaml"
        path.write_text(TEXT.format(mark=f"-{time.time_ns() % 10**8}"))
        url = arguments.log or f"sqlite:{folder}/mesh.db"
        topology = load_topology(str(path))
        log = open_log(Settings(log=url, topology=str(path)), client="bench")
        await log.start()
        await log.create_topics(topic_specs(topology))
        urls = {"log": url, "board": f"sqlite:{folder}/board.db", "topology": str(path)}
        after_kill = await killed(log, topology, urls, arguments.runs)
        _, note = await place(log, topology)
        size = await checkpoint_bytes(log, topology, note)
        full = Live(log, topology)
        await full.ready()
        await full.stop()
        many = await handed_over(log, topology)
        tail = await handed_over(log, topology, min(arguments.runs, COSTS.tail_us_min // COSTS.record_us) * 9 // 10)
        rest = Live(log, topology)
        await append(log, topology, range(FEW, arguments.runs), CANCELLED)
        await rest.stop()
        few = await handed_over(log, topology)
        await log.close()
    return {
        "log": "kafka" if arguments.log else "sqlite",
        "machine_load_1m": round(os.getloadavg()[0], 1),
        "open_runs": arguments.runs,
        "checkpoint_bytes_per_run": round(size / arguments.runs),
        "after_kill": after_kill,
        "full": {
            "restore_s": round(full.service.restored_s, 2),
            "restore_cpu_s": round(full.service.cpu_s, 2),
            "loop_still_ms_max": round(full.service.still_s * 1_000),
        },
        "hand_over_many": many,
        "hand_over_tail": tail,
        "hand_over_few": few,
        "memory": memory(topology),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--log", default="", help="kafka://HOST:PORT; default: an embedded log in a temporary folder")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--no-save", action="store_true", help="only print")
    arguments = parser.parse_args()
    tune_garbage_collector()
    figures = asyncio.run(measure(arguments))
    print(json.dumps(figures, indent=2))
    if not arguments.no_save:
        save(f"recovery-{figures['log']}", figures)


if __name__ == "__main__":
    main()
