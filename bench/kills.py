"""Kill -9 in the middle of the work, and count: every order must have exactly one outcome.

    python -m bench.kills --log kafka://127.0.0.1:9092 --board redis://127.0.0.1:6379 --orders 20000

Two orchestrators, three workers and an intake run, each in a process of its own. Orders are written to orders.placed. A
worker and an orchestrator are killed with SIGKILL while they work, and started again. At the end an independent reader
counts runs without an outcome, runs with two different ones, and orders without an event on orders.decided. It also
counts records that the log holds twice (with the same event id, which readers recognise).
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson

from bench.mesh_processes import ROOT, Child, mesh_up, private_topology
from mesh.adapters.ports import Appended, Log
from mesh.app.wiring import load_topology, open_log, topic_specs
from mesh.core.protocol.event import run_id_of
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.settings import Settings

BATCH = 500
INBOX_RECORDS = 5
"""Inbox records of an order: the request, three answers, the decision. Their number shows the progress."""
COUNTRIES = ("DE", "FR", "AT", "NL", "US", "KP")


def order(n: int) -> dict[str, Any]:
    """Order number `n`: always the same; most can be fulfilled, some not."""
    lines = [{"sku": f"sku-{(n * 7 + i) % 103:03d}", "qty": 1 + (n + i) % 3} for i in range(1 + n % 3)]
    return {"order_id": f"o-{n}", "customer": f"c-{n % 500}", "country": COUNTRIES[n % 6], "lines": lines}


async def records_of(log: Log, topic: str) -> list[Record]:
    """Everything a topic holds now."""
    bounds = await log.bounds(topic)
    ends = {TopicPartition(topic, p): b.end for p, b in bounds.items() if b.end > b.start}
    reader = log.reader({tp: bounds[tp.partition].start for tp in ends})
    found: list[Record] = []
    try:
        while any(reader.position(tp) < end for tp, end in ends.items()):
            found.extend(await reader.poll(records_max=5_000, wait_ms=200))
    finally:
        await reader.close()
    return found


async def ended(log: Log, topic: str, count: int, deadline_s: float) -> bool:
    """Wait until `count` different runs have an outcome; False when they do not come."""
    bounds = await log.bounds(topic)
    reader = log.reader({TopicPartition(topic, p): b.start for p, b in bounds.items()})
    seen: set[bytes] = set()
    try:
        async with asyncio.timeout(deadline_s):
            while len(seen) < count:
                seen.update(r.key or b"" for r in await reader.poll(records_max=5_000, wait_ms=200))
    except TimeoutError:
        return False
    finally:
        await reader.close()
    return True


def count(outcomes: list[Record], decided: list[Record], asked: set[str], ids: set[str]) -> dict[str, Any]:
    """The ledger against what the log holds."""
    ends: dict[str, set[bytes]] = defaultdict(set)
    endings: dict[str, int] = defaultdict(int)
    why: dict[str, int] = defaultdict(int)
    for record in outcomes:
        run = (record.key or b"").decode()
        if not ends[run]:
            body = orjson.loads(record.value or b"{}")
            endings[body["ending"]] += 1
            for trouble in body["failures"] + body["refusals"]:
                why[f"{trouble['agent']}: {trouble['code']}: {trouble['message'][:160]}"] += 1
        ends[run].add(dict(record.headers)["ce_id"])
    events: dict[str, set[bytes]] = defaultdict(set)
    for record in decided:
        events[orjson.loads(record.value or b"{}")["order_id"]].add(dict(record.headers)["ce_id"])
    return {
        "lost": len(asked - set(ends)),
        "ended_twice": sum(len(found) > 1 for found in ends.values()),
        "unasked": len(set(ends) - asked),
        "orders_without_event": len(ids - set(events)),
        "orders_decided_twice": sum(len(found) > 1 for found in events.values()),
        "outcome_records_repeated": len(outcomes) - sum(map(len, ends.values())),
        "endings": dict(endings),
        "why": dict(sorted(why.items(), key=lambda item: -item[1])[:10]),
    }


async def trial(*, log_url: str, board_url: str, orders: int, kills: int, seed_mark: str) -> dict[str, Any]:
    """One run of the whole thing; the figures."""
    with tempfile.TemporaryDirectory(prefix="mesh-kills-") as folder:
        path = private_topology(ROOT / "topics.yaml", Path(folder), seed_mark)
        log_url = log_url or f"sqlite:{folder}/mesh.db"
        board_url = board_url or f"sqlite:{folder}/board.db"
        topology = load_topology(str(path))
        log = open_log(Settings(log=log_url, topology=str(path)), client="kills")
        await log.start()
        await log.create_topics(topic_specs(topology))
        placed, decided = f"orders.placed{seed_mark}", f"orders.decided{seed_mark}"
        services = [["intake"], ["orchestrator"], ["orchestrator"], ["worker"], ["worker"], ["worker"]]
        killed: list[str] = []
        environ = {"MESH_SESSION_TIMEOUT_MS": "6000"}
        async with mesh_up(services, log=log_url, board=board_url, topology=str(path), environ=environ) as children:
            began = time.perf_counter()
            waiting = asyncio.ensure_future(ended(log, topology.outcomes, orders, 1_200))
            for at in range(0, orders, BATCH):
                batch = [order(n) for n in range(at, min(at + BATCH, orders))]
                new = [NewRecord(placed, o["order_id"].encode(), orjson.dumps(o)) for o in batch]
                assert all(isinstance(verdict, Appended) for verdict in await log.append(new))
            for n in range(kills):
                await _holds(log, topology.inbox, (n + 1) * orders * INBOX_RECORDS // (kills + 2))
                for number in (1 + n % 2, 3 + n % 3):
                    killed.append(children[number].arguments[0])
                    await replace(children, number)
            finished = await waiting
            took_s = time.perf_counter() - began
        asked = {run_id_of(f"/topics/{placed}", f"o-{n}") for n in range(orders)}
        figures = count(
            await records_of(log, topology.outcomes),
            await records_of(log, decided),
            asked,
            {f"o-{n}" for n in range(orders)},
        )
        await log.close()
    return {"orders": orders, "killed": killed, "finished": finished, "took_s": round(took_s, 1), **figures}


async def _holds(log: Log, topic: str, count: int) -> None:
    """Wait until a topic holds so many records."""
    async with asyncio.timeout(300):
        while sum(b.end - b.start for b in (await log.bounds(topic)).values()) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def replace(children: list[Child], number: int) -> None:
    """SIGKILL and a new process; the new one is not waited for."""
    old = children[number]
    old.kill()
    if old.starting is not None:
        old.starting.cancel()
    children[number] = new = old.again()
    new.starting = asyncio.ensure_future(new.start())


def main() -> None:
    """Command line. Exit status 1 when something was lost or ended twice."""
    parser = argparse.ArgumentParser(description="kill -9 in the middle of the work, and count")
    parser.add_argument("--log", default="", help="kafka://HOST:PORT; default: an embedded log in a temporary folder")
    parser.add_argument("--board", default="", help="redis://HOST:PORT; default: an embedded board")
    parser.add_argument("--orders", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=1, help="how often a worker and an orchestrator are killed")
    arguments = parser.parse_args()
    mark = f"-{time.time_ns() % 10**8}"
    figures = asyncio.run(
        trial(
            log_url=arguments.log,
            board_url=arguments.board,
            orders=arguments.orders,
            kills=arguments.kills,
            seed_mark=mark,
        )
    )
    print(json.dumps(figures, indent=2))
    wrong = ("lost", "ended_twice", "unasked", "orders_without_event", "orders_decided_twice")
    raise SystemExit(not figures["finished"] or any(figures[name] for name in wrong))


if __name__ == "__main__":
    main()
