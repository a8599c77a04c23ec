"""All benchmarks, one after the other: `python -m bench`, or some of them: `python -m bench decide runs`.

Those that need a broker start one through scripts/kafka in a temporary folder; where it cannot run they say so.
"""

import argparse
import subprocess
import sys
import tempfile

from bench.mesh_processes import ROOT

EMBEDDED = {"decide": (), "wire_sqlite": (), "wire_board": ("--redis", ""), "runs": (), "recovery": ()}
KAFKA_PORT = "39092"


def run(name: str, *arguments: str) -> int:
    """One benchmark in a process of its own."""
    print(f"== {name} {' '.join(arguments)}", flush=True)
    return subprocess.run([sys.executable, "-m", f"bench.{name}", *arguments], cwd=ROOT, check=False).returncode


def on_kafka(names: list[str]) -> int:
    """Benchmarks on a broker that is started and stopped here."""
    script = str(ROOT / "scripts" / "kafka")
    with tempfile.TemporaryDirectory(prefix="mesh-bench-kafka-") as folder:
        where = ["--dir", folder]
        if subprocess.run([script, "start", *where, "--port", KAFKA_PORT], check=False).returncode:
            print("the benchmarks on Kafka were not run: no broker could be started here")
            return 0
        try:
            bootstrap = f"127.0.0.1:{KAFKA_PORT}"
            failed = 0
            if "wire_kafka" in names:
                failed += run("wire_kafka", "--bootstrap", bootstrap) != 0
            for name in ("runs", "recovery"):
                if name in names:
                    failed += run(name, "--log", f"kafka://{bootstrap}") != 0
            return failed
        finally:
            subprocess.run([script, "stop", *where], check=True)


def main() -> None:
    """Command line; exit status 1 when a benchmark failed."""
    everything = [*EMBEDDED, "wire_kafka"]
    parser = argparse.ArgumentParser(prog="python -m bench", description="the benchmarks of the mesh")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(everything)}; default: all")
    names: list[str] = parser.parse_args().names or everything
    if unknown := [name for name in names if name not in everything]:
        parser.error(f"unknown benchmark {unknown[0]!r}; known: {', '.join(everything)}")
    failed = sum(run(name, *EMBEDDED[name]) != 0 for name in names if name in EMBEDDED)
    if {"wire_kafka", "runs", "recovery"} & set(names):
        failed += on_kafka(names)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
