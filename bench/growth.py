"""Throughput with more worker processes, for agents that wait and agents that compute: `python -m bench.growth`.

    python -m bench.growth                                  1, 2 and 4 worker processes on the embedded log
    python -m bench.growth --log kafka://127.0.0.1:9092     on your broker
    python -m bench.growth --broker --for 30s               on a broker that is started and stopped here
    python -m bench.growth --check                          measures nothing: compares stored results with the model

One orchestrator and that number of workers run on this machine. Agents that wait sleep 50 ms, sixteen at a time in
each process; those that compute use one core for about 2 ms. Results go to bench/results/growth-io-LOG.json and
growth-cpu-LOG.json; the model (bench/model.py) is then compared with them.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from bench.__main__ import broker
from bench.agents import compute
from bench.costs import Check, checks
from bench.field import Setup, written
from bench.load import ROUNDS, Payload, throughput
from bench.report import NONE, RESULTS, Figure, Result, results, significant
from bench.workloads.io import request
from mesh.cli.framework.text import seconds
from mesh.core.errors import MeshError

PROCESSES = (1, 2, 4)
PARTITIONS = 8
LANES = 16
WAIT_MS = 50
WORK_MS = 2.0
CALIBRATION_S = 0.2
BATCH_MIN = 50


class Work(NamedTuple):
    """A kind of agent. `wait_ms` or `work_ms` is 0."""

    name: str
    what: str
    agent: str
    wait_ms: int = 0
    work_ms: float = 0.0

    @property
    def text(self) -> str:
        """topics.yaml."""
        agents = {self.agent: f"on: bench.{self.agent}, emits: bench.answer, lanes: {LANES}"}
        return written(agents, partitions=PARTITIONS)

    def ideal(self, processes: int, cores: int) -> float:
        """Runs a second if the mesh cost nothing."""
        if self.wait_ms:
            return processes * LANES * 1_000 / self.wait_ms
        return min(processes, cores) * 1_000 / self.work_ms


IO = Work("growth-io", "worker processes on agents that wait", "wait", wait_ms=WAIT_MS)
CPU = Work("growth-cpu", "worker processes on agents that compute", "burn", work_ms=WORK_MS)


def calibrated(work_ms: float = WORK_MS) -> int:
    """Rounds of `compute` that take so long here, on a core of one's own."""
    rounds, used = 1_000, 0.0
    while True:
        began = time.process_time()
        compute(rounds)
        used = time.process_time() - began
        if used >= CALIBRATION_S:
            return max(1, round(rounds * work_ms / 1_000 / used))
        rounds *= 2


def burn(rounds: int, n: int) -> Payload:
    """A request for so much computing."""
    return {"id": f"burn-{time.time_ns()}-{n}", "rounds": rounds}


async def measure(work: Work, setup: Setup, processes: Sequence[int] = PROCESSES) -> dict[str, Any]:
    """The result for one kind of agent. Raises RuntimeError, TimeoutError when runs do not end as they should."""
    rounds = 0 if work.wait_ms else calibrated()
    cores = os.cpu_count() or 1
    found: list[Figure] = []
    for number in processes:
        setup.say(f"{work.name}: {number} worker processes")
        asked = await throughput(
            setup,
            work.text,
            ["orchestrator"],
            *[["worker"]] * number,
            first=BATCH_MIN,
            type=f"bench.{work.agent}",
            payload=(lambda n: request(WAIT_MS, n)) if work.wait_ms else (lambda n: burn(rounds, n)),
        )
        at = {"processes": number}
        ideal = significant(work.ideal(number, cores))
        found += [
            *asked.figures(**at),
            Figure("runs_per_burst", asked.runs // ROUNDS, "runs", NONE, at),
            Figure("ideal_runs_per_s", ideal, "runs/s", NONE, at, limit=True),
        ]
    settings = {
        "seconds": setup.seconds,
        "partitions": PARTITIONS,
        "lanes": LANES,
        "wait_ms": work.wait_ms,
        "work_ms": work.work_ms,
        "work_rounds": rounds,
    }
    named = f" --log {setup.kind}:…" if setup.log else ""
    command = f"python -m bench.growth --for {setup.seconds:g}s{named}"
    how = (
        f"{PARTITIONS} partitions, {LANES} lanes an agent, one orchestrator. "
        + (f"Tasks wait {WAIT_MS} ms. " if work.wait_ms else f"Tasks use a core for about {WORK_MS:g} ms. ")
        + "Ideal is what so many processes could do on these cores if the mesh cost nothing."
    )
    return Result(work.name, work.what, how, setup.kind, found, settings, command).body()


def save(body: dict[str, Any], folder: Path) -> Path:
    """Write a result as growth-WORK-LOG.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{body['workload']}-{body['log']}.json"
    path.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return path


def table(found: Sequence[Check]) -> str:
    """Measured beside predicted, as text."""
    lines = [f"{'point':26} {'log':7} {'measured':>10} {'model':>10} {'error':>7}  limit"]
    for check in found:
        shown = f"{check.measured:10,.0f} {check.predicted:10,.0f} {check.error:+7.0%}"
        lines.append(f"{check.what:26} {check.log:7} {shown}  {check.station}")
    return "\n".join(lines)


def main() -> None:
    """Command line; exit status 1 when a measuring came to nothing."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--log", default="", help="kafka://HOST:PORT; default: an embedded log in a temporary folder")
    parser.add_argument("--board", default="", help="redis://HOST:PORT; default: an embedded board")
    parser.add_argument("--broker", action="store_true", help="start a broker with scripts/kafka, and stop it")
    parser.add_argument("--for", dest="time", default="20s", metavar="TIME", help="about how long each point measures")
    parser.add_argument("--processes", default="1,2,4", metavar="N,N,…", help="numbers of worker processes")
    parser.add_argument("--to", type=Path, default=RESULTS, metavar="FOLDER", help="where results are kept")
    parser.add_argument("--check", action="store_true", help="only compare the model with the results in that folder")
    given = parser.parse_args()
    try:
        setup = Setup(given.log, given.board, seconds("--for", given.time), say=lambda text: print(text, flush=True))
        processes = [int(number) for number in given.processes.split(",")]
        if not given.check and given.broker:
            with broker() as log:
                if not log:
                    sys.exit(1)
                _measured(replace(setup, log=log), processes, given.to)
        elif not given.check:
            _measured(setup, processes, given.to)
    except (MeshError, RuntimeError, TimeoutError, ValueError) as error:
        sys.exit(f"error: {error or 'the runs did not end in time'}")
    print(table(checks(results(given.to))))


def _measured(setup: Setup, processes: Sequence[int], folder: Path) -> None:
    for work in (IO, CPU):
        print(save(asyncio.run(measure(work, setup, processes)), folder))


if __name__ == "__main__":
    main()
