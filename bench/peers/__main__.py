"""Compare the mesh and its peers on the same work in the same run.

    python -m bench.peers.setup                                                        once
    python -m bench.peers --workload hop --log kafka://127.0.0.1:9092 --repeat 5
    python -m bench.peers --workload run1 --log kafka://127.0.0.1:9092                 ours on Kafka and embedded
    python -m bench.peers --workload run1                                              ours embedded

They run in turn, A B C A B C …; the median of the ratios of all rounds is shown with the lowest and the highest. Then
each is killed with SIGKILL twice in the middle of its work, all at the same time, and lost and repeated answers are
counted. Results go to bench/results/, one file for each peer. Kill tests of our runs are those of
`bench.kills` and of tests/live.
"""

import argparse
import asyncio
import logging
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.field import Setup
from bench.peers import hop, run, skeleton_load
from bench.peers.compare import Measured, NotMeasured, Sample, alternate, figures, table
from bench.peers.kills import Verdict
from bench.peers.results import SKELETON, results
from bench.peers.setup import NotMade, python
from bench.peers.topics import opened
from bench.report import RESULTS, save_result

MESSAGES = {"hop": 100_000, "run1": 20_000, "run3": 20_000}
KILL_MESSAGES = {"hop": 150, "run1": 100, "run3": 100}
Sides = Mapping[str, Callable[[], Awaitable[Sample]]]
Tests = Mapping[str, Callable[[], Awaitable[Verdict]]]
Found = tuple[Measured[Sample], dict[str, dict[str, Any]]]


async def verdicts(tests: Tests) -> dict[str, dict[str, Any]]:
    """Return the verdict of each kill test; a test that was not possible has its reason.

    All run at the same time, since they mostly wait and measure nothing.
    """
    found: dict[str, dict[str, Any]] = {}

    async def judged(name: str, test: Callable[[], Awaitable[Verdict]]) -> None:
        try:
            verdict = await test()
            found[name] = {**verdict._asdict(), "safe": verdict.safe}
        except NotMeasured as error:
            found[name] = {"failed": str(error)}
        print(f"kill -9  {name}: {found[name]}", flush=True)

    async with asyncio.TaskGroup() as group:
        for name, test in tests.items():
            group.create_task(judged(name, test))
    return {name: found[name] for name in tests}


async def said(name: str, measure: Callable[[], Awaitable[Sample]]) -> Sample:
    """Measure, and say what came."""
    sample = await measure()
    print(f"{name}: {sample.per_s:,.0f}/s, {sample.cpu_us:.1f} µs", flush=True)
    return sample


def wanted(names: list[str], only: str) -> list[str]:
    """Return the names that contain one of the words; without words all."""
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    return [name for name in names if not words or any(word in name.lower() for word in words)]


async def compared(options: argparse.Namespace, sides: Sides, tests: Tests) -> Found:
    """The rounds, then the kills."""
    speaking = {name: partial(said, name, sides[name]) for name in wanted(list(sides), options.only)}
    measured = await alternate(speaking, options.repeat) if options.repeat else Measured[Sample]({}, {})
    chosen = {name: tests[name] for name in wanted(list(tests), options.only)}
    return measured, await verdicts(chosen) if options.kill else {}


async def on_hop(options: argparse.Namespace) -> Found:
    """The workload hop: needs Kafka."""
    where = options.log.removeprefix("kafka://")
    kills = KILL_MESSAGES["hop"]
    async with opened(where) as topics:
        sides = {
            p.name: partial(hop.throughput, p, where, topics, messages=options.messages, seconds_max=options.seconds)
            for p in (hop.OURS, *hop.PEERS)
        }
        tests = {p.name: partial(hop.killed, p, where, messages=kills) for p in (hop.OURS, *hop.PEERS)}
        return await compared(options, sides, tests)


async def on_runs(options: argparse.Namespace) -> Found:
    """The workloads run1 and run3."""
    steps, runs, kills = run.STEPS[options.workload], options.messages, KILL_MESSAGES[options.workload]
    logs = {"kafka": options.log, "sqlite": ""} if options.log else {"sqlite": ""}
    sides: dict[str, Callable[[], Awaitable[Sample]]] = {
        run.OURS[kind]: partial(run.ours, options.workload, log, options.seconds) for kind, log in logs.items()
    }
    if options.log and options.workload == "run1":
        setup = Setup(log=options.log, seconds=options.seconds)
        sides[SKELETON] = partial(skeleton_load.throughput, setup)
    for peer in run.PEERS:
        sides[peer.name] = partial(run.throughput, peer, steps, runs=runs, seconds_max=options.seconds)
    tests = {peer.name: partial(run.killed, peer, steps, runs=kills) for peer in run.PEERS}
    return await compared(options, sides, tests)


def line() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", choices=("hop", "run1", "run3"), default="hop")
    parser.add_argument("--log", default="", help="kafka://HOST:PORT; hop needs one, runs are only embedded without")
    parser.add_argument("--repeat", type=int, default=5, help="rounds; 0: only the kill tests")
    parser.add_argument("--messages", type=int, default=0, help="a side and round")
    parser.add_argument("--seconds", type=float, default=20.0, help="at most so long a side and round")
    parser.add_argument("--only", default="", help="sides whose name holds one of these words, separated by commas")
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True, help="kill -9 each, and count")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True, help="write results")
    parser.add_argument("--to", type=Path, default=RESULTS, metavar="FOLDER", help="where; default: bench/results")
    return parser


def main() -> None:
    """Ends with status 2 for a wrong command line, or where there is no environment of the peers."""
    parser = line()
    options = parser.parse_args()
    options.messages = options.messages or MESSAGES[options.workload]
    if options.workload == "hop" and not options.log.startswith("kafka://"):
        parser.error("--workload hop needs --log kafka://HOST:PORT, as from: scripts/kafka start")
    try:
        python()
    except NotMade as error:
        parser.error(str(error))
    # The library warns of each topic that is still being made, and calls each that was deleted here an error.
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    logging.getLogger("aiokafka.cluster").setLevel(logging.CRITICAL)
    # Asked to end, it ends what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    measured, kills = asyncio.run((on_hop if options.workload == "hop" else on_runs)(options))
    ours = {hop.OURS.name: "kafka"} if options.workload == "hop" else {name: kind for kind, name in run.OURS.items()}
    print(table(figures(measured, list(ours), kills)))
    if options.save:
        settings = {"rounds": options.repeat, "seconds_max": options.seconds, "messages": options.messages}
        for result in results(options.workload, ours, measured, kills, settings, command(sys.argv[1:])):
            print(save_result(result.body(), options.to))


def command(arguments: list[str]) -> str:
    """Return the command that repeats the measurement, without addresses and folders, since results are published."""
    options = line().parse_args(arguments)
    words = [
        "python",
        "-m",
        "bench.peers",
        "--workload",
        options.workload,
        *(["--log", "kafka:…"] if options.log else []),
    ]
    words += ["--repeat", f"{options.repeat}", "--seconds", f"{options.seconds:g}"]
    words += ["--messages", f"{options.messages}"] if options.messages else []
    words += ["--only", shlex.quote(options.only)] if options.only else []
    return " ".join([*words, *([] if options.kill else ["--no-kill"])])


if __name__ == "__main__":
    main()
