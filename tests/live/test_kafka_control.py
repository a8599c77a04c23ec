"""The kill switch on real Kafka: felt by every worker and known to every partition within a second."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mesh.adapters.kafka import KafkaLog
from mesh.app.process import Process, running
from mesh.app.wiring import open_board, topic_specs
from mesh.client import Mesh
from mesh.core.run.control import Switch
from mesh.core.task.agent import describe
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology
from mesh.runtime.control_follower import control_now
from mesh.settings import Settings
from tests.live.conftest import OpenKafka
from tests.services.conftest import read_until

pytestmark = pytest.mark.live

WITHIN_S = 1.0
TASKS = 300


class Desk:
    """A mesh with a prefix of its own, its agents spread over two connections as over two processes."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.begun: list[tuple[int, float]] = []
        """Which worker, and when."""

    async def turn(self, state: str) -> float:
        """Turn the switch of all agents; when that began."""
        began_s = time.monotonic()
        await self.mesh.send_switch(Switch("agent", "*", state, "ann@desk", "a test"))
        return began_s


def topology() -> Topology:
    return load(f"""
mesh: {{name: t, prefix: control{time.time_ns() % 10**8}, inbox: {{partitions: 4}}, limits: {{deadline: 120s}}}}
topics:
  asks{time.time_ns() % 10**8}: {{ingress: ask, id: id, partitions: 2}}
  answers{time.time_ns() % 10**8}: {{egress: answer, partitions: 2}}
agents:
  ticker: {{run: "x:y", on: ask, emits: answer, timeout: 20s, lanes: 2}}
""")


@pytest.fixture
async def desk(open_kafka: OpenKafka, kafka_bootstrap: str, tmp_path: Path) -> AsyncIterator[Desk]:
    mesh, settings = topology(), Settings(log=f"sqlite:{tmp_path / 'board.db'}")
    log = await open_kafka(kafka_bootstrap)
    await log.create_topics(topic_specs(mesh))
    desk = Desk(Mesh(log, mesh))

    def ticker(number: int) -> Callable[[dict[str, object]], object]:
        async def tick(ask: dict[str, object]) -> None:
            desk.begun.append((number, time.monotonic()))
            await asyncio.sleep(0.02)

        return tick

    async with AsyncExitStack() as exits:
        board = open_board(settings, mesh.prefix)
        await board.start()
        exits.push_async_callback(board.close)
        for number, services in enumerate((("orchestrator", "worker"), ("worker",))):
            own: KafkaLog = await open_kafka(kafka_bootstrap)
            agents = {"ticker": describe(ticker(number))}
            process = Process(own, mesh, settings, services=services, agents=agents, board=board)
            await exits.enter_async_context(running(process))
        exits.push_async_callback(desk.mesh.close)
        yield desk


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110  # what an agent counts sets no event
            await asyncio.sleep(0.005)


async def test_a_stop_and_its_end_are_felt_by_every_worker_within_a_second(desk: Desk) -> None:
    runs = await desk.mesh.send([desk.mesh.request("ask", {"id": f"a{n}"}) for n in range(TASKS)])
    await until(lambda: len({number for number, _ in desk.begun}) == 2)
    stopped_s = await desk.turn("stopped")
    await until(lambda: time.monotonic() - max(desk.begun[-1][1], stopped_s) > WITHIN_S)
    felt_s, begun = desk.begun[-1][1] - stopped_s, len(desk.begun)
    assert felt_s < WITHIN_S
    assert begun < TASKS
    (stop,) = (await control_now(desk.mesh.log, desk.mesh.topology)).stops
    assert (stop.by, stop.why) == ("ann@desk", "a test")
    resumed_s = await desk.turn("running")
    await until(lambda: len(desk.begun) > begun)
    went_on_s = desk.begun[begun][1] - resumed_s
    assert went_on_s < WITHIN_S
    print(f"felt {felt_s * 1_000:.0f} ms after it was said, resumed after {went_on_s * 1_000:.0f} ms")
    outcomes = await asyncio.gather(*(run.outcome(timeout_s=60) for run in runs))
    assert all(outcomes)


async def test_every_partition_of_the_inbox_gets_the_switch(desk: Desk) -> None:
    said_s = await desk.turn("stopped")
    told = await read_until(desk.mesh.log, desk.mesh.topology.inbox, 4)
    took_s = time.monotonic() - said_s
    assert took_s < WITHIN_S + 1, "opening a reader takes its time too"
    assert sorted(record.partition for record in told) == [0, 1, 2, 3]
