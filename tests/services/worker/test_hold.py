"""The kill switch of one agent in a worker: nothing is begun, what runs is cancelled, and all goes on afterwards."""

import asyncio
import threading
import time

from mesh.adapters.ports import Board, Log
from tests.services.conftest import append, read_all, settled, working
from tests.services.worker.counting_agents import TOPOLOGY, Answer, Ask, answers, counts, task, topology, until, worker


async def test_while_held_nothing_is_begun_and_afterwards_all_is_done_in_order(log: Log, board: Board) -> None:
    gate = asyncio.Event()
    begun: list[int] = []
    cancelled: list[int] = []

    async def echo(ask: Ask) -> Answer:
        begun.append(ask.n)
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.append(ask.n)
            raise
        return Answer(n=ask.n)

    mesh = topology(timeout="60s", lanes=2)
    crew = worker(log, board, echo, mesh)
    consumer = crew.consumers["echo"]
    async with working(log, mesh, crew.run):
        await append(log, *(task(n, key=f"k{n % 2}") for n in range(6)))
        await until(lambda: len(begun) == 2)
        before_s = time.monotonic()
        consumer.pause()
        consumer.pause()
        await until(lambda: crew.running == 0)
        assert time.monotonic() - before_s < 10  # of the 60 s that the tasks may take
        assert sorted(cancelled) == [0, 1]
        await append(log, task(6, key="k0"), task(7, key="other"))
        gate.set()
        clock_s = time.monotonic() + 0.3
        while time.monotonic() < clock_s:
            assert len(begun) == 2
            await asyncio.sleep(0.01)
        assert await read_all(log, mesh.inbox) == []
        consumer.resume()
        consumer.resume()
        found = await answers(log, 8)
        await settled(log, "mesh.echo", mesh.tasks("echo"))
    assert {a.kind for a in found} == {"succeeded"}
    for parity in (0, 1):
        numbers = [n for n in begun if n % 2 == parity and n != 7]
        assert numbers == [parity, *sorted(set(numbers))]
    assert counts(crew).shown() == {"succeeded": 8}


async def test_a_function_that_ignores_the_kill_switch_is_abandoned_and_its_task_done_again(
    log: Log, board: Board
) -> None:
    gate, begun = asyncio.Event(), 0

    async def echo(ask: Ask) -> Answer:
        nonlocal begun
        begun += 1
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return Answer(n=ask.n)

    mesh = topology(timeout="60s", lanes=1)
    crew = worker(log, board, echo, mesh, grace_ms=30)
    consumer = crew.consumers["echo"]
    async with working(log, mesh, crew.run):
        await append(log, task(1))
        await until(lambda: begun == 1)
        consumer.pause()
        await until(lambda: crew.running == 0)
        assert (crew.abandoned_calls, counts(crew).abandoned) == (1, 1)
        gate.set()
        await until(lambda: counts(crew).late == 1)
        assert await read_all(log, mesh.inbox) == []
        consumer.resume()
        (answer,) = await answers(log, 1)
        await settled(log, "mesh.echo", mesh.tasks("echo"))
    assert (answer.kind, begun) == ("succeeded", 2)


async def test_a_blocking_function_is_left_alone_at_once_and_its_task_done_again(log: Log, board: Board) -> None:
    gate = threading.Event()
    begun: list[int] = []

    def echo(ask: Ask) -> Answer:
        begun.append(ask.n)
        gate.wait(20)
        return Answer(n=ask.n)

    mesh = topology(timeout="60s", lanes=1)
    crew = worker(log, board, echo, mesh)
    consumer = crew.consumers["echo"]
    async with working(log, mesh, crew.run):
        await append(log, task(1))
        await until(lambda: begun == [1])
        consumer.pause()
        await until(lambda: crew.running == 0)
        gate.set()
        await until(lambda: counts(crew).late == 1)
        consumer.resume()
        assert [a.kind for a in await answers(log, 1)] == ["succeeded"]
    assert begun == [1, 1]


async def test_a_worker_that_begins_while_held_waits_and_goes_on(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    crew = worker(log, board, echo)
    consumer = crew.consumers["echo"]
    consumer.pause()
    async with working(log, TOPOLOGY, crew.run):
        await crew.wait_ready()
        await append(log, task(1), task(2))
        clock_s = time.monotonic() + 0.2
        while time.monotonic() < clock_s:
            assert await read_all(log, TOPOLOGY.inbox) == []
            await asyncio.sleep(0.01)
        consumer.resume()
        assert len(await answers(log, 2)) == 2


async def test_a_worker_that_is_stopped_while_held_ends_and_leaves_the_tasks_to_the_next(
    log: Log, board: Board
) -> None:
    begun = asyncio.Event()

    async def hangs(ask: Ask) -> Answer:
        begun.set()
        await asyncio.Event().wait()
        return Answer(n=0)

    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    mesh = topology(timeout="60s", lanes=1)
    crew = worker(log, board, hangs, mesh, drain_ms=10_000)
    before_s = time.monotonic()
    async with working(log, mesh, crew.run):
        await append(log, task(1), task(2))
        await begun.wait()
        crew.consumers["echo"].pause()
    assert time.monotonic() - before_s < 5
    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        assert {a.kind for a in await answers(log, 2)} == {"succeeded"}
