"""Ours and the peers on the same work in the same run.

    python -m bench.peers.setup                                                        once
    python -m bench.peers --workload hop --log kafka://127.0.0.1:9092 --repeat 5

In turn, A B C A B C …; ratios are taken round by round and their median is shown with the lowest and the highest. Then
each is killed with SIGKILL twice in the middle of its work, and what was lost or came twice is counted.
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from bench.peers import hop
from bench.peers.compare import Measured, NotMeasured, Sample, figures, in_turn, table
from bench.peers.kills import Verdict
from bench.peers.setup import REQUIREMENTS
from bench.peers.topics import opened
from bench.report import save

KILL_MESSAGES = 300
Sides = Mapping[str, Callable[[], Awaitable[Sample]]]


async def verdicts(tests: Mapping[str, Callable[[], Awaitable[Verdict]]]) -> dict[str, dict[str, Any]]:
    """What kill -9 did to each; a test that could not be made is there with its reason."""
    found: dict[str, dict[str, Any]] = {}
    for name, test in tests.items():
        try:
            verdict = await test()
            found[name] = {**verdict._asdict(), "safe": verdict.safe}
        except NotMeasured as error:
            found[name] = {"failed": str(error)}
        print(f"kill -9  {name}: {found[name]}", flush=True)
    return found


async def said(name: str, measure: Callable[[], Awaitable[Sample]]) -> Sample:
    """Measure, and say what came."""
    sample = await measure()
    print(f"{name}: {sample.per_s:,.0f}/s, {sample.cpu_us:.1f} µs", flush=True)
    return sample


def wanted(names: list[str], only: str) -> list[str]:
    """Those whose name holds one of the words; all without words."""
    words = [word.strip().lower() for word in only.split(",") if word.strip()]
    return [name for name in names if not words or any(word in name.lower() for word in words)]


async def on_hop(told: argparse.Namespace) -> dict[str, Any]:
    """The workload hop: needs Kafka."""
    bootstrap = told.log.removeprefix("kafka://")
    peers = {peer.name: peer for peer in (hop.OURS, *hop.PEERS)}
    chosen = [peers[name] for name in wanted(list(peers), told.only)]
    async with opened(bootstrap) as topics:
        messages, seconds_max = told.messages or 100_000, told.seconds
        sides: Sides = {
            p.name: partial(
                said,
                p.name,
                partial(hop.throughput, p, bootstrap, topics, messages=messages, seconds_max=seconds_max),
            )
            for p in chosen
        }
        measured = await in_turn(sides, told.repeat) if told.repeat else Measured({}, {})
        tests = {p.name: partial(hop.killed, p, bootstrap, topics, messages=KILL_MESSAGES) for p in chosen}
        fates = await verdicts(tests) if told.kill else {}
    return figures(measured, hop.OURS.name, fates)


def versions() -> dict[str, str]:
    """The packages of the peers, as pinned."""
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if "==" in line]
    names = {"aiokafka", "confluent-kafka", "faststream", "faust-streaming", "dbos", "restate-sdk", "pydantic"}
    return {name: version for name, _, version in (line.partition("==") for line in lines) if name in names}


WORKLOADS = {"hop": on_hop}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", choices=tuple(WORKLOADS), default="hop")
    parser.add_argument("--log", default="", help="kafka://HOST:PORT; hop needs one")
    parser.add_argument("--repeat", type=int, default=5, help="rounds; 0: only the kill tests")
    parser.add_argument("--messages", type=int, default=0, help="a side and round")
    parser.add_argument("--seconds", type=float, default=20.0, help="at most so long a side and round")
    parser.add_argument("--only", default="", help="sides whose name holds one of these words, separated by commas")
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True, help="kill -9 each, and count")
    parser.add_argument("--save", action=argparse.BooleanOptionalAction, default=True, help="write bench/results/")
    told = parser.parse_args()
    if told.workload == "hop" and not told.log.startswith("kafka://"):
        parser.error("--workload hop needs --log kafka://HOST:PORT, as from: scripts/kafka start")
    sides = asyncio.run(WORKLOADS[told.workload](told))
    print(table(sides))
    if told.save:
        body = {"workload": told.workload, "repeat": told.repeat, "peers": versions(), "sides": sides}
        print(save(f"peers-{told.workload}", body).relative_to(REQUIREMENTS.parents[2]))


if __name__ == "__main__":
    main()
