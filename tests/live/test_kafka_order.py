"""Order on real Kafka while processes are killed: events of one key are begun in the order of their ingress topic."""

import asyncio
import time
from collections import defaultdict
from pathlib import Path

import orjson
import pytest

from bench.mesh_processes import Child, mesh_up
from mesh.adapters.ports import Appended
from mesh.app.wiring import load_topology, open_log, topic_specs
from mesh.core.protocol.record import NewRecord
from mesh.settings import Settings

pytestmark = pytest.mark.live

KEYS = 60
EVENTS = 30
"""Events of each key."""
AGENTS = """
import asyncio, os

def begun(agent, event):
    file = os.open("BEGUN", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{agent} {event['customer']} {event['n']}\\n".encode())
    os.close(file)

async def first(event: dict) -> dict:
    begun("first", event)
    await asyncio.sleep(0.002)
    return event

async def second(event: dict) -> None:
    begun("second", event)
"""
TOPOLOGY = """
mesh: {name: order, prefix: PREFIX, inbox: {partitions: 6}, limits: {deadline: 10m}}
topics:
  PREFIX-in: {ingress: moved, order: key, key: customer, partitions: 3}
agents:
  first: {run: "ledger:first", on: moved, emits: booked, key: customer}
  second: {run: "ledger:second", on: booked, key: customer}
"""


async def test_events_of_a_key_are_begun_in_their_order_though_every_kind_of_process_is_killed(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    prefix, file = f"order{time.time_ns() % 10**8}", tmp_path / "begun.txt"
    (tmp_path / "ledger.py").write_text(AGENTS.replace("BEGUN", str(file)))
    (path := tmp_path / "topics.yaml").write_text(TOPOLOGY.replace("PREFIX", prefix))
    topology, url = load_topology(str(path)), f"kafka://{kafka_bootstrap}"
    log = open_log(Settings(log=url, topology=str(path)), client="test")
    await log.start()
    await log.create_topics(topic_specs(topology))
    events = [{"customer": f"c-{key}", "n": n} for n in range(EVENTS) for key in range(KEYS)]
    records = [NewRecord(f"{prefix}-in", str(e["customer"]).encode(), orjson.dumps(e)) for e in events]
    services = [["intake"], ["orchestrator"], ["orchestrator"], ["worker"], ["worker"]]
    environ = {"MESH_SESSION_TIMEOUT_MS": "6000"}
    board = f"sqlite:{tmp_path}/board.db"
    async with mesh_up(services, log=url, board=board, topology=str(path), environ=environ) as children:
        killing = asyncio.ensure_future(kill_all(children, file))
        for at in range(0, len(records), 50):  # while work goes on, so that every process has some when it is killed
            assert all(isinstance(verdict, Appended) for verdict in await log.append(records[at : at + 50]))
            await reached(file, at)
        await killing
        await reached(file, 2 * len(records), unique=True)
    await log.close()
    for agent, keys in first_times(file).items():
        assert len(keys) == KEYS, agent
        wrong = {key: begun for key, begun in keys.items() if begun != list(range(EVENTS))}
        assert not wrong, f"{agent}: {len(wrong)} of {KEYS} keys out of order, such as {next(iter(wrong.items()))}"


def first_times(file: Path) -> dict[str, dict[str, list[int]]]:
    """Agent → key → its events in the order in which they were begun for the first time."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for agent, key, n in map(str.split, file.read_text().splitlines() if file.exists() else ()):
        if int(n) not in found[agent][key]:
            found[agent][key].append(int(n))
    return found


async def reached(file: Path, count: int, *, unique: bool = False) -> None:
    """Wait until so many tasks were begun."""
    async with asyncio.timeout(240):
        while True:
            times = first_times(file)
            if (sum(len(ns) for keys in times.values() for ns in keys.values()) if unique else lines(file)) >= count:
                return
            await asyncio.sleep(0.05)


def lines(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


async def kill_all(children: list[Child], file: Path) -> None:
    """End each process with SIGKILL, one after the other, while work goes on, and start it again."""
    for turn, number in enumerate((0, 3, 1, 0)):
        await reached(file, (turn + 1) * 2 * KEYS * EVENTS // 6)
        old = children[number]
        old.kill()
        children[number] = new = old.again()
        new.starting = asyncio.ensure_future(new.start())
