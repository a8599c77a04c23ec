"""A mesh with one agent, `echo`, whose function the test gives, and tasks for it."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson

from mesh import Payload
from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Board, Log
from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import TASK, Event
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.task.agent import describe
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology
from mesh.services.worker import Counts, Worker, WorkerOptions
from tests.services.conftest import read_until


class Ask(Payload, type="ask"):
    n: int


class Answer(Payload, type="answer"):
    n: int


def topology(timeout: str = "2s", lanes: int = 64, more: str = "") -> Topology:
    return load(f"""
mesh: {{name: t, prefix: mesh, inbox: {{partitions: 2}}}}
topics:
  asks: {{ingress: ask, partitions: 2}}
  answers: {{egress: answer, partitions: 2}}
agents:
  echo: {{run: "x:y", on: ask, emits: answer, timeout: {timeout}, lanes: {lanes}{more}}}
""")


TOPOLOGY = topology()


def worker(
    log: Log,
    board: Board,
    function: Callable[..., Any],
    mesh: Topology = TOPOLOGY,
    drain_ms: int = 2_000,
    grace_ms: int = 2_000,
    abandoned_max: int = 32,
    after_outage: bool = False,
    records_max: int = 500,
) -> Worker:
    agents = {"echo": describe(function)}
    options = WorkerOptions(
        session_timeout_ms=2_000,
        drain_timeout_ms=drain_ms,
        grace_ms=grace_ms,
        abandoned_max=abandoned_max,
        after_outage=after_outage,
        records_max=records_max,
    )
    return Worker(log, board, mesh, agents, SystemClock(), options)


def counts(working: Worker) -> Counts:
    """Return the counts of the one agent."""
    return working.counts["echo"]


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  # whatever it is, it need not set an event
            await asyncio.sleep(0.002)


def task(n: int, *, key: str | None = None, data: bytes | None = None, expiry_ms: int | None = None) -> NewRecord:
    body = orjson.dumps({"n": n}) if data is None else data
    made = Event(
        f"t{n}:1",
        "/mesh/t",
        "ask",
        TASK,
        f"r{n}",
        body,
        agent="echo",
        task_id=f"t{n}",
        depth=1,
        path=("echo",),
        expiry_ms=expiry_ms,
    )
    return NewRecord(TOPOLOGY.tasks("echo"), (key or f"r{n}").encode(), body, event_headers(made))


def event(record: Record) -> Event:
    found = read_event(record)
    assert not isinstance(found, Unreadable), found
    return found


async def answers(log: Log, count: int) -> list[Event]:
    return [event(r) for r in await read_until(log, TOPOLOGY.inbox, count)]
