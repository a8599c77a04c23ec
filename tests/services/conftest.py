"""An embedded log and board in a temporary file, and services that run inside a test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh.adapters.ports import Appended, Board, Log
from mesh.app.wiring import open_board, open_log, topic_specs
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.topology.model import Topology
from mesh.settings import Settings

DEADLINE_S = 60.0


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(log=f"sqlite:{tmp_path / 'mesh.db'}", session_timeout_ms=2_000, drain_timeout_ms=2_000)


@pytest.fixture
async def log(settings: Settings) -> AsyncIterator[Log]:
    log = open_log(settings)
    await log.start()
    yield log
    await log.close()


@pytest.fixture
async def board(settings: Settings) -> AsyncIterator[Board]:
    board = open_board(settings, "mesh")
    await board.start()
    yield board
    await board.close()


@asynccontextmanager
async def working(
    log: Log, topology: Topology, run: Callable[[asyncio.Event], Awaitable[None]]
) -> AsyncIterator[asyncio.Event]:
    """A service's `run` in a task, topics created; stopped and awaited at the end. Yields its stop event."""
    await log.create_topics(topic_specs(topology))
    stop = asyncio.Event()
    task = asyncio.ensure_future(run(stop))
    try:
        yield stop
    finally:
        stop.set()
        async with asyncio.timeout(DEADLINE_S):
            await task


async def append(log: Log, *records: NewRecord) -> None:
    """Append, all of them."""
    assert all(isinstance(verdict, Appended) for verdict in await log.append(records))


async def read_until(log: Log, topic: str, count: int, *, deadline_s: float = DEADLINE_S) -> list[Record]:
    """The first `count` records of a topic, waiting for them; fails with what is there when they do not come."""
    bounds = await log.bounds(topic)
    reader = log.reader({TopicPartition(topic, number): b.start for number, b in bounds.items()})
    found: list[Record] = []
    try:
        async with asyncio.timeout(deadline_s):
            while len(found) < count:
                found.extend(await reader.poll(records_max=1_000, wait_ms=200))
    except TimeoutError:
        pytest.fail(f"{topic}: {len(found)} of {count} records within {deadline_s:g} s")
    finally:
        await reader.close()
    return found


async def read_all(log: Log, topic: str) -> list[Record]:
    """Read all records of a topic."""
    count = sum(b.end - b.start for b in (await log.bounds(topic)).values())
    return await read_until(log, topic, count) if count else []


async def settled(log: Log, group: str, topic: str, *, deadline_s: float = DEADLINE_S) -> None:
    """Wait until the group has committed everything that the topic holds."""
    async with asyncio.timeout(deadline_s):
        while True:
            places = await log.committed(group, topic)
            bounds = await log.bounds(topic)
            if all(b.start == b.end or (p in places and places[p].offset == b.end) for p, b in bounds.items()):
                return
            await asyncio.sleep(0.005)
