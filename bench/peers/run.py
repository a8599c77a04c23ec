"""The workloads run1 and run3 on the peers that orchestrate; ours is bench/workloads/run1.py and run3.py.

A peer's program asks itself for the runs, in its own process, so no time is lost on the way; its answers are counted in
a file. The clock runs as it does in `hop`. Temporal is left out: Restate
starts from a package registry, Temporal's Python package fetches its server from a site of its own.
"""

import asyncio
import importlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from bench.field import Setup
from bench.load import throughput as throughput_of
from bench.mesh_processes import ROOT
from bench.peers.compare import NotMeasured, Sample
from bench.peers.kills import Process, Verdict, kill_and_count, warm
from bench.peers.run_load import run_id
from bench.peers.setup import python

LINE_BYTES = len(run_id(0)) + 1
KILL_WORK_MS = 1_000
STEPS = {"run1": 1, "run3": 3}


class RunPeer(NamedTuple):
    """A program in this folder."""

    name: str
    module: str


PEERS = (RunPeer("DBOS on SQLite", "run_dbos"), RunPeer("Restate", "run_restate"))
OURS = {"kafka": "mesh on Kafka", "sqlite": "mesh embedded"}
"""Our sides, by the log."""


class Asked:
    """A peer with its folder and its process: what `kills` calls a subject. It promises nothing that we could see."""

    def __init__(self, process: Process, folder: Path) -> None:
        self.process = process
        self._answers, self._begun = folder / "answers", folder / "begun"

    def begun(self) -> int:
        return self._begun.stat().st_size if self._begun.exists() else 0

    async def count(self) -> int:
        return self._answers.stat().st_size // LINE_BYTES if self._answers.exists() else 0

    async def promised(self) -> int:
        return 0

    async def answers(self) -> list[str]:
        return self._answers.read_text().split() if self._answers.exists() else []


@asynccontextmanager
async def asked(peer: RunPeer, steps: int, runs: int, work_ms: int) -> AsyncIterator[Asked]:
    """The process not yet started; all gone after the block."""
    with TemporaryDirectory(prefix="mesh-peers-") as name:
        folder = Path(name)
        options = ["--steps", str(steps), "--runs", str(runs), "--folder", name]
        if work_ms:
            options += ["--work-ms", str(work_ms), "--touch", str(folder / "begun")]
        command = [str(python()), "-m", f"bench.peers.{peer.module}", *options]
        process = Process(command, folder=folder, cwd=ROOT, environ={})
        try:
            yield Asked(process, folder)
        finally:
            await process.kill()


async def throughput(peer: RunPeer, steps: int, *, runs: int, seconds_max: float) -> Sample:
    """Runs a second, and processor time of the peer with its server, if it has one, a run."""
    async with asked(peer, steps, runs, 0) as stage:
        process = stage.process
        await process.start()
        first = await warm(stage, runs, 60 + seconds_max)
        began, cpu_s = time.perf_counter(), process.cpu_s()
        last = first
        while last < runs and time.perf_counter() - began < seconds_max:
            process.check()
            await asyncio.sleep(0.01)
            last = await stage.count()
        spent, cpu_s = time.perf_counter() - began, process.cpu_s() - cpu_s
    if last == first:
        raise NotMeasured(f"none of {runs} outcomes came within the time")
    return Sample((last - first) / spent, cpu_s * 1e6 / (last - first))


async def killed(peer: RunPeer, steps: int, *, runs: int) -> Verdict:
    """Kill it twice in the middle of `runs` slow ones, its server too, and count what its last steps did."""
    async with asked(peer, steps, runs, KILL_WORK_MS) as stage:
        ids = [run_id(n) for n in range(runs)]
        return await kill_and_count(stage, ids, kills=2, up_s_min=1.0, settle_s=25.0, deadline_s=240.0)


async def ours(workload: str, log: str, seconds: float) -> Sample:
    """The canonical workload on our side: its rate, and processor time of all its processes a run."""
    # By name, since the workloads are found so: each is a file that `bench.workloads.load` imports.
    text = importlib.import_module(f"bench.workloads.{workload}").TEXT
    try:
        found = await throughput_of(Setup(log=log, seconds=seconds), text, ["orchestrator"], ["worker"])
    except (RuntimeError, TimeoutError) as error:
        raise NotMeasured(str(error) or "its runs did not end in time") from error
    return Sample(median(found.runs_per_s), sum(found.cpu_us_per_run.values()))
