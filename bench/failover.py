"""Measure the runs that end while processes are killed, and whether starved processes are taken for dead.

    python -m bench.failover --log kafka://127.0.0.1:9092 --sessions 10000,6000,3000
    python -m bench.failover --log kafka://127.0.0.1:9092 --sessions 3000 --kill-every 0 --burners 8

Two orchestrators and two workers run as processes of their own. Runs of three steps are requested at a steady rate.
Every `--kill-every` seconds a worker or an orchestrator, in turn, gets SIGKILL and is started again at once. The
figures for each session timeout:

    ended_meanwhile   share of the runs asked for that have an outcome when the load ends
    p50_s, p99_s, max_s  time from the request to the outcome, over all runs
    answered_twice    tasks whose function was called again, and answered again
    member_ids        member ids that the groups had; without kills, each further one is a false death

`--burners` processes use all the processor time they get, to starve the mesh.
"""

import argparse
import asyncio
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from bench.field import Field, Setup
from bench.kills import records_of, replace
from bench.load import BATCH, Outcomes, ask, send, watching
from bench.mesh_processes import Child
from bench.workloads.run3 import TEXT
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.event import FAILED, SUCCEEDED

SERVICES = (["orchestrator"], ["orchestrator"], ["worker"], ["worker"])
VICTIMS = (2, 0, 3, 1)
"""Indexes of SERVICES in the order of the kills: a worker, then an orchestrator."""
BATCHES_A_SECOND = 10
ANSWERS = (SUCCEEDED.encode(), FAILED.encode())
WARM_S, REST_S_MAX = 5.0, 120.0


async def asked(field: Field, rate: float, seconds: float) -> list[tuple[bytes, float]]:
    """Request `rate` runs a second, whether or not earlier ones have ended; return each run with its time."""
    found: list[tuple[bytes, float]] = []
    began = time.perf_counter()
    for beat in range(1, round(seconds * BATCHES_A_SECOND) + 1):
        await asyncio.sleep(max(0.0, began + beat / BATCHES_A_SECOND - time.perf_counter()))
        wanted = range(len(found), round(rate * beat / BATCHES_A_SECOND))
        events = [field.mesh.request("bench.ask", ask(n)) for n in wanted]
        now = time.perf_counter()
        for at in range(0, len(events), BATCH):
            await send(field.mesh, events[at : at + BATCH])
        found += [(event.run_id.encode(), now) for event in events]
    return found


@asynccontextmanager
async def member_ids(bootstrap: str, field: Field) -> AsyncIterator[set[str]]:
    """Member ids that the groups have, looked up twice a second inside the block."""
    seen: set[str] = set()
    groups = [f"{field.topology.prefix}.{name}" for name in ("orchestrator", *field.topology.agents)]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()

    async def look() -> None:
        while True:
            for answer in await admin.describe_consumer_groups(groups):
                seen.update(m["member_id"] for g in answer.to_object()["groups"] for m in g["members"])
            await asyncio.sleep(0.5)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.wait([looking])
        await admin.close()
    if not looking.cancelled():
        looking.result()


@contextmanager
def burning(count: int) -> Iterator[None]:
    """Run `count` processes that compete with the mesh for the processors."""
    burners = [multiprocessing.Process(target=_burn, daemon=True) for _ in range(count)]
    for one in burners:
        one.start()
    try:
        yield
    finally:
        for one in burners:
            one.terminate()
            one.join()


def _burn() -> None:
    while True:
        pass


async def kill_in_turn(children: list[Child], every_s: float) -> None:
    """Kill one process after the other and start each again at once, until cancelled."""
    turn = 0
    while every_s:
        await asyncio.sleep(every_s)
        await replace(children, VICTIMS[turn % len(VICTIMS)])
        turn += 1


async def trial(arguments: argparse.Namespace, session_ms: int) -> dict[str, Any]:
    """Measure a new mesh under load and return the figures."""
    environ = {"MESH_SESSION_TIMEOUT_MS": str(session_ms)} if session_ms else {}
    async with Setup(log=arguments.log).field(TEXT) as field:
        bootstrap = arguments.log.partition("://")[2]
        async with (
            field.up(*SERVICES, environ=environ) as children,
            watching(field) as outcomes,
            member_ids(bootstrap, field) as members,
        ):
            warm = await asked(field, arguments.rate, WARM_S)
            await outcomes.until(len(warm), REST_S_MAX)
            first = len(members)
            with burning(arguments.burners):
                killing = asyncio.create_task(kill_in_turn(children, arguments.kill_every))
                runs = await asked(field, arguments.rate, arguments.seconds)
                killing.cancel()
            ended = sum(run in outcomes.at for run, _ in runs)
            await outcomes.until(len(warm) + len(runs), REST_S_MAX)
            ids = (first, len(members))
        return {
            "session_ms": session_ms,
            "asked": len(runs),
            "ended_meanwhile": round(ended / len(runs), 3),
            **late(runs, outcomes),
            "answered_twice": await answered_twice(field),
            "member_ids": ids,
        }


def late(runs: list[tuple[bytes, float]], outcomes: Outcomes) -> dict[str, float]:
    """Return the seconds from the request to the outcome."""
    took = sorted(outcomes.at[run] - at for run, at in runs)
    parts = {"p50_s": 0.5, "p99_s": 0.99, "max_s": 1.0}
    return {name: round(took[min(len(took) - 1, int(len(took) * part))], 2) for name, part in parts.items()}


async def answered_twice(field: Field) -> int:
    """Count the attempts that have more than one answer in the inbox."""
    answers: Counter[tuple[bytes, ...]] = Counter()
    for record in await records_of(field.log, field.topology.inbox):
        headers = dict(plain_headers(record.headers))
        if headers.get("ce_meshkind") in ANSWERS:
            answers[headers["ce_meshtask"], headers.get("mesh-attempt", b"")] += 1
    return sum(count > 1 for count in answers.values())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--log", required=True, help="kafka://HOST:PORT")
    parser.add_argument("--sessions", default="0", help="session timeouts in ms, separated by commas; 0: the default")
    parser.add_argument("--seconds", type=float, default=80.0, help="how long the load lasts")
    parser.add_argument("--kill-every", type=float, default=8.0, help="seconds between two kills; 0: none")
    parser.add_argument("--rate", type=float, default=30.0, help="runs a second")
    parser.add_argument("--burners", type=int, default=0, help="processes that only use processor time")
    arguments = parser.parse_args()
    for session_ms in map(int, arguments.sessions.split(",")):
        print(json.dumps(asyncio.run(trial(arguments, session_ms))), flush=True)


if __name__ == "__main__":
    main()
