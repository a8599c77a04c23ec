"""Ours and the peers on the same work in the same run.

    python -m bench.peers.setup                                                        once
    python -m bench.peers --workload hop --log kafka://127.0.0.1:9092 --repeat 5
    python -m bench.peers --workload run1 --log kafka://127.0.0.1:9092                 ours on Kafka and embedded
    python -m bench.peers --workload run1                                              ours embedded

In turn, A B C A B C …; ratios are taken round by round and their median is shown with the lowest and the highest. Then
each is killed with SIGKILL twice in the middle of its work, all of them at the same time, and what was lost or came
twice is counted. Results go to bench/results/, one file for each peer. Kill tests of our runs are those of
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

from bench.peers import hop, run
from bench.peers.compare import Measured, NotMeasured, Sample, figures, in_turn, table
from bench.peers.kills import Verdict
from bench.peers.results import results
from bench.peers.setup import NotMade, python
from bench.peers.topics import opened
from bench.report import RESULTS, save_result

MESSAGES = {"hop": 100_000, "run1": 20_000, "run3": 20_000}
KILL_MESSAGES = {"hop": 150, "run1": 100, "run3": 100}
Sides = Mapping[str, Callable[[], Awaitable[Sample]]]
Tests = Mapping[str, Callable[[], Awaitable[Verdict]]]
Found = tuple[Measured, dict[str, dict[str, Any]]]


async def verdicts(tests: Tests) -> dict[str, dict[str, Any]]:
    """What kill -9 did to each; a test that could not be made is there with its reason. All at the same time: most of
    it is waiting, and nothing is measured."""
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
    """Those whose name holds one of the words; all without words."""
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    return [name for name in names if not words or any(word in name.lower() for word in words)]


async def compared(told: argparse.Namespace, sides: Sides, tests: Tests) -> Found:
    """The rounds, then the kills."""
    speaking = {name: partial(said, name, sides[name]) for name in wanted(list(sides), told.only)}
    measured = await in_turn(speaking, told.repeat) if told.repeat else Measured({}, {})
    chosen = {name: tests[name] for name in wanted(list(tests), told.only)}
    return measured, await verdicts(chosen) if told.kill else {}


async def on_hop(told: argparse.Namespace) -> Found:
    """The workload hop: needs Kafka."""
    where = told.log.removeprefix("kafka://")
    kills = KILL_MESSAGES["hop"]
    async with opened(where) as topics:
        sides = {
            p.name: partial(hop.throughput, p, where, topics, messages=told.messages, seconds_max=told.seconds)
            for p in (hop.OURS, *hop.PEERS)
        }
        tests = {p.name: partial(hop.killed, p, where, messages=kills) for p in (hop.OURS, *hop.PEERS)}
        return await compared(told, sides, tests)


async def on_runs(told: argparse.Namespace) -> Found:
    """The workloads run1 and run3."""
    steps, runs, kills = run.STEPS[told.workload], told.messages, KILL_MESSAGES[told.workload]
    logs = {"kafka": told.log, "sqlite": ""} if told.log else {"sqlite": ""}
    sides: dict[str, Callable[[], Awaitable[Sample]]] = {
        run.OURS[kind]: partial(run.ours, told.workload, log, told.seconds) for kind, log in logs.items()
    }
    for peer in run.PEERS:
        sides[peer.name] = partial(run.throughput, peer, steps, runs=runs, seconds_max=told.seconds)
    tests = {peer.name: partial(run.killed, peer, steps, runs=kills) for peer in run.PEERS}
    return await compared(told, sides, tests)


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
    told = parser.parse_args()
    told.messages = told.messages or MESSAGES[told.workload]
    if told.workload == "hop" and not told.log.startswith("kafka://"):
        parser.error("--workload hop needs --log kafka://HOST:PORT, as from: scripts/kafka start")
    try:
        python()
    except NotMade as error:
        parser.error(str(error))
    # The library warns of each topic that is still being made, and calls each that was deleted here an error.
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    logging.getLogger("aiokafka.cluster").setLevel(logging.CRITICAL)
    # Told to end, it ends what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    measured, fates = asyncio.run((on_hop if told.workload == "hop" else on_runs)(told))
    ours = {hop.OURS.name: "kafka"} if told.workload == "hop" else {name: kind for kind, name in run.OURS.items()}
    print(table(figures(measured, list(ours), fates)))
    if told.save:
        settings = {"rounds": told.repeat, "seconds_max": told.seconds, "messages": told.messages}
        for result in results(told.workload, ours, measured, fates, settings, command(sys.argv[1:])):
            print(save_result(result.body(), told.to))


def command(arguments: list[str]) -> str:
    """What a user types to have the same measured; addresses and folders are left out, since results are published."""
    told = line().parse_args(arguments)
    words = ["python", "-m", "bench.peers", "--workload", told.workload, *(["--log", "kafka:…"] if told.log else [])]
    words += ["--repeat", f"{told.repeat}", "--seconds", f"{told.seconds:g}"]
    words += ["--messages", f"{told.messages}"] if told.messages else []
    words += ["--only", shlex.quote(told.only)] if told.only else []
    return " ".join([*words, *([] if told.kill else ["--no-kill"])])


if __name__ == "__main__":
    main()
