"""What tracing costs: CPU time of one-step runs without spans, with 1 % of the runs sampled, and with all of them.

    python -m bench.tracing                  rounds in turns, each in a process of its own, and their ratios

A round is a whole mesh in one process on an embedded log, with the exporter of OTLP over HTTP and a collector that
reads nothing. A ratio is one of the least CPU times, since other processes can only add to them. Where no spans are
made, what is left of tracing is the calls that find that out; they are timed by themselves.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import threading
import time
import timeit
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

from bench.load import ask
from bench.mesh_processes import ROOT
from bench.report import save, significant
from mesh.adapters.tracing.decision_spans import DecisionSpans
from mesh.adapters.tracing.kept_spans import KeptSpans
from mesh.adapters.tracing.span_factory import SpanFactory
from mesh.adapters.tracing.trace_export import exported
from mesh.core.protocol.record import StoredRecord
from mesh.testing import MeshTest

SHARES: Final = {"off": None, "sampled_1_percent": 0.01, "sampled_all": 1.0}
"""Name of a mode and the share of runs that is sampled."""
RECORDS_A_RUN: Final = 2
"""Records that the orchestrator decides for a run of one step."""
TEXT: Final = """
mesh: {name: bench, prefix: bench}
topics: {bench.asks: {ingress: bench.ask}, bench.answers: {egress: bench.answer}}
agents: {echo: {run: "bench.agents:echo", on: bench.ask, emits: bench.answer, lanes: 256}}
"""


async def one_round(runs: int) -> float:
    """CPU time of a run in microseconds, in this process."""
    async with exported("mesh", KeptSpans(2_048, 10_000)), MeshTest(TEXT) as mesh:
        for count in (runs // 5, runs):
            began = time.process_time()
            started = await mesh.client.send([mesh.client.request("bench.ask", ask(n)) for n in range(count)])
            ended = await asyncio.gather(*(run.outcome(timeout_s=120) for run in started))
            if not all(ended):
                raise RuntimeError("a run did not complete")
        return (time.process_time() - began) * 1e6 / runs


def in_child(share: float | None, runs: int, address: str) -> float:
    """CPU time of a run in microseconds, in a process of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    if share is not None:
        environ |= {"OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}
        environ["OTEL_TRACES_SAMPLER_ARG"] = str(share)
    command = [sys.executable, "-m", "bench.tracing", "--round", "--runs", str(runs)]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def hooks_us() -> float:
    """Time in microseconds of the calls that a run makes although no spans are made."""
    spans = DecisionSpans(SpanFactory(), inbox="i", dead="d", group="g")
    record, none = StoredRecord("i", 0, 0, 0, b"", b"", ()), dict[str, Any]().get
    number = 200_000
    seconds = min(timeit.repeat(lambda: spans.decided(record, (), spans.now_ns(), none), number=number, repeat=5))
    return seconds / number * 1e6 * RECORDS_A_RUN


@contextmanager
def collector() -> Iterator[str]:
    """An address that takes OTLP."""

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # a name of the base class
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def measure(runs: int, rounds: int) -> dict[str, Any]:
    """All modes in turns."""
    samples: dict[str, list[float]] = {name: [] for name in SHARES}
    with collector() as address:
        for _ in range(rounds):
            for name, share in SHARES.items():
                samples[name].append(in_child(share, runs, address))
    figures: dict[str, Any] = {"runs": runs, "rounds": rounds}
    figures["cpu_us_per_run"] = {name: [significant(value) for value in found] for name, found in samples.items()}
    for name in list(SHARES)[1:]:
        figures[f"{name}_of_off"] = significant(min(samples[name]) / min(samples["off"]))
    figures["off_hooks_us_per_run"] = significant(hooks_us())
    figures["off_hooks_share"] = significant(figures["off_hooks_us_per_run"] / min(samples["off"]))
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--round", action="store_true", help="one round in this process")
    arguments = parser.parse_args()
    if arguments.round:
        print(json.dumps(asyncio.run(one_round(arguments.runs))))
        return
    figures = measure(arguments.runs, arguments.rounds)
    print(json.dumps(figures, indent=2))
    save("tracing", figures)


if __name__ == "__main__":
    main()
