"""All workloads one after the other, embedded and on the broker that MESH_BENCH_LOG names.

    python -m bench                                     all of them, five seconds each
    python -m bench run1 latency --for 60s              some of them, longer
    MESH_BENCH_LOG=kafka://127.0.0.1:9092 python -m bench
    python -m bench --broker                            on a broker that is started and stopped here
    python -m bench decide wire_sqlite                  parts by themselves, each with its own report

Each is a process of its own, `mesh bench NAME`, so that the memory of one does not affect another.

Results go to bench/results; `python -m bench.report_page` writes docs/reference/benchmarks.md from them. `make bench`
(`python -m bench.full`) runs everything, with growth, peers and pages.
"""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.mesh_processes import ROOT
from bench.report import RESULTS
from bench.workloads import NAMES, load

PARTS = {"decide": (), "wire_sqlite": (), "wire_board": ("--redis", ""), "wire_kafka": (), "runs": (), "find": ()}
"""Benchmarks of parts, and their arguments."""
LOG = "MESH_BENCH_LOG"


def run(module: str, *arguments: str) -> bool:
    """One benchmark in a process of its own; whether it failed."""
    print(f"== {module} {' '.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=False).returncode != 0


def measured(names: Sequence[str], seconds: str, log: str, to: str) -> int:
    """These on one log, results to a folder; how many failed. Workloads in which no log takes part run with the
    embedded one."""
    failed = 0
    for name in names:
        if name in PARTS:
            if name == "wire_kafka" and log:
                failed += run("bench.wire_kafka", "--bootstrap", log.removeprefix("kafka://"))
            elif name != "wire_kafka" and (not log or name in ("runs", "find")):
                failed += run(f"bench.{name}", *PARTS[name], *(["--log", log] if log else []))
        elif not log or load(name).on_log:
            failed += run("mesh", "bench", name, "--for", seconds, "--to", to, *(["--log", log] if log else []))
    return failed


def free_port() -> int:
    """Return a port on which no process listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def broker() -> Iterator[str]:
    """The address of a broker that lives as long as the block, warmed up; empty where none could be started."""
    script = str(ROOT / "scripts" / "kafka")
    with tempfile.TemporaryDirectory(prefix="mesh-bench-kafka-") as folder:
        where, port = ["--dir", folder], free_port()
        if subprocess.run([script, "start", *where, "--port", str(port)], check=False).returncode:
            print("the benchmarks on Kafka were not run: no broker could be started here")
            yield ""
            return
        try:
            log = f"kafka://127.0.0.1:{port}"
            if run("bench.warming", "--log", log):
                print("the broker was not warmed up: what is measured on it first comes out slow")
            yield log
        finally:
            subprocess.run([script, "stop", *where], check=True)


def main() -> None:
    """Command line; exit status 1 when a benchmark failed."""
    known = [*NAMES, *PARTS]
    parser = argparse.ArgumentParser(prog="python -m bench", description="the benchmarks of the mesh")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; default: all workloads")
    parser.add_argument("--for", dest="seconds", default="5s", metavar="TIME", help="about how long each one measures")
    parser.add_argument("--broker", action="store_true", help="start a broker with scripts/kafka, and stop it")
    parser.add_argument("--to", default=str(RESULTS), metavar="FOLDER", help="where results of workloads are kept")
    given = parser.parse_args()
    names: list[str] = given.names or list(NAMES)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown benchmark {unknown[0]!r}; known: {', '.join(known)}")
    failed = measured(names, given.seconds, "", given.to)
    log = os.environ.get(LOG, "")
    if given.broker:
        with broker() as log:
            failed += measured(names, given.seconds, log, given.to) if log else 0
    elif log:
        failed += measured(names, given.seconds, log, given.to)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
