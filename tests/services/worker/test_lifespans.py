"""Resources of agents: opened once in a process before the first task, closed after the last one."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

from mesh import Context, Payload, agent
from mesh.core.errors import InvalidInput, MeshError
from mesh.core.protocol.event import SUCCEEDED, TASK, Event
from mesh.core.task.agent import agent_of
from mesh.core.topology.loader import load
from mesh.runtime.execution.isolation import CallRequest, ChildProcesses
from mesh.services.worker.lifespans import Lifespans
from mesh.settings import Settings
from mesh.testing import MeshTest


class Ask(Payload, type="ask"):
    n: int


class Half(Payload, type="half"):
    n: int


class Answer(Payload, type="answer"):
    pool: str


EVENTS: list[str] = []


@pytest.fixture(autouse=True)
def events() -> list[str]:
    EVENTS.clear()
    return EVENTS


@asynccontextmanager
async def pool() -> AsyncIterator[str]:
    _mark("open")
    yield f"pool {EVENTS.count('open')}"
    _mark("close")


def _mark(what: str) -> None:
    """Note an event here, and for a test of another process in a file."""
    EVENTS.append(what)
    if "POOL_MARKS" in os.environ:
        with open(os.environ["POOL_MARKS"], "a") as file:
            file.write(f"{what}\n")


@asynccontextmanager
async def broken() -> AsyncIterator[str]:
    EVENTS.append("try")
    raise OSError("no such host")
    yield ""


@agent(lifespan=pool)
async def first(ask: Ask, ctx: Context) -> Half:
    EVENTS.append(str(ctx.resources))
    return Half(n=ask.n)


@agent(lifespan=pool)
def second(half: Half, ctx: Context) -> Answer:
    return Answer(pool=str(ctx.resources))


@agent(lifespan=broken)
async def unlucky(ask: Ask, ctx: Context) -> None: ...


async def test_agents_that_name_one_lifespan_share_what_it_opened() -> None:
    async with MeshTest.of(first, second) as mesh:
        runs = [await mesh.publish("ask", {"n": n}) for n in range(3)]
        results = [(await run.outcome(timeout_s=20)).results[0].data for run in runs]
        assert ["open", *["pool 1"] * 3] == EVENTS
    assert results == [{"pool": "pool 1"}] * 3
    assert EVENTS[-1] == "close"
    assert EVENTS.count("close") == 1


async def test_a_lifespan_that_fails_is_named_and_ends_the_process() -> None:
    with pytest.raises(BaseExceptionGroup) as raised:
        async with MeshTest.of(unlucky):
            pass
    errors: list[BaseException] = [raised.value]
    while isinstance(errors[0], BaseExceptionGroup):
        errors = list(errors[0].exceptions)
    assert isinstance(errors[0], MeshError)
    assert "the lifespan of an agent failed: OSError: no such host" in str(errors[0])
    assert f"{__name__}:unlucky" in str(errors[0])


async def test_an_error_or_a_delay_at_closing_keeps_no_process_from_ending() -> None:
    @asynccontextmanager
    async def rude() -> AsyncIterator[int]:
        yield 1
        raise OSError("already closed")

    @asynccontextmanager
    async def slow() -> AsyncIterator[int]:
        yield 2
        await asyncio.Event().wait()

    for lifespan in (rude, slow):
        lifespans = Lifespans()

        @agent(lifespan=lifespan)
        async def work(ask: Ask) -> None: ...

        assert await lifespans.enter(agent_of(work)) in (1, 2)
        await lifespans.close(timeout_s=0.05)
        assert not lifespans


async def test_an_agent_without_a_lifespan_has_no_resources() -> None:
    @agent
    async def plain(ask: Ask) -> None: ...

    lifespans = Lifespans()
    assert await lifespans.enter(agent_of(plain)) is None
    assert not lifespans
    await lifespans.close()


def test_a_generator_without_its_decorator_is_refused_at_import() -> None:
    async def bare() -> AsyncIterator[int]:
        yield 1

    with pytest.raises(InvalidInput, match="makes no context manager"):

        @agent(lifespan=bare)  # type: ignore[arg-type]
        async def work(ask: Ask) -> None: ...


def test_a_decorator_around_an_agent_keeps_its_lifespan() -> None:
    @wraps(first)
    async def wrapped(ask: Ask, ctx: Context) -> Any:
        return await first(ask, ctx)

    assert agent_of(wrapped).lifespan is pool


async def test_an_isolated_process_opens_resources_for_itself_and_closes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    monkeypatch.setenv("POOL_MARKS", str(marks))
    spec = load(
        "mesh: {name: t, prefix: mesh}\ntopics: {asks: {ingress: ask, partitions: 1}}\n"
        'agents: {first: {run: "x:y", on: ask, emits: half}, next: {run: "x:z", on: half}}\n'
    ).agents["first"]
    isolated_processes = ChildProcesses(
        Settings(log=f"sqlite:{tmp_path / 'mesh.db'}", board_prefix="mesh"), processes_max=1
    )
    where = agent_of(first).where
    for n in range(2):
        task = Event(f"t{n}:1", "/m", "ask", TASK, "r", b'{"n": 1}', agent="first", task_id=f"t{n}")
        async with asyncio.timeout(60), isolated_processes.acquire(where) as isolated_process:
            answer = await isolated_process.answer(CallRequest(spec, where, task, None), None)
        assert answer.kind == SUCCEEDED, answer.fault
    assert marks.read_text() == "open\n"
    await isolated_processes.close()
    assert marks.read_text() == "open\nclose\n"
    assert EVENTS == []
