"""All agents of a process: their counts, and the end of a process that holds too many calls that do not end."""

import asyncio
import threading

import pytest

from mesh.adapters.ports import Board, Log
from mesh.app.wiring import topic_specs
from mesh.core.errors import WorkerSpent
from mesh.core.protocol.record import NewRecord
from mesh.core.run.control import Switch, control_record
from tests.services.conftest import append, read_all
from tests.services.worker.counting_agents import TOPOLOGY, Answer, Ask, answers, counts, task, topology, until, worker


async def test_with_too_many_calls_that_do_not_end_a_worker_ends_in_good_order(log: Log, board: Board) -> None:
    gate, slow, begun = threading.Event(), threading.Event(), threading.Event()

    def echo(ask: Ask) -> Answer:
        if ask.n < 0:
            gate.wait(20)
        elif ask.n == 100:
            begun.set()
            slow.wait(20)
        return Answer(n=ask.n)

    mesh = topology(timeout="300ms", lanes=8)
    await log.create_topics(topic_specs(mesh))
    crew = worker(log, board, echo, mesh, abandoned_max=3)
    running = asyncio.create_task(crew.run(asyncio.Event()))
    await append(log, *(task(-n) for n in range(1, 4)))
    await answers(log, 3)
    assert not running.done()
    await append(log, task(-4), task(100))
    await until(lambda: begun.is_set() or counts(crew).abandoned == 4)
    slow.set()  # in hand while the worker is about to end, and answered
    with pytest.raises(WorkerSpent, match="4 abandoned calls of agents still run"):
        async with asyncio.timeout(20):
            await running
    assert (crew.abandoned_calls, counts(crew).abandoned) == (4, 4)
    kinds = {a.task_id: a.kind for a in await answers(log, 5)}
    assert kinds["t100"] == "succeeded"
    places = await log.committed("mesh.echo", TOPOLOGY.tasks("echo"))
    assert sum(place.offset for place in places.values()) == 5
    assert len(await read_all(log, TOPOLOGY.inbox)) == 5
    gate.set()
    await until(lambda: crew.abandoned_calls == 0)


async def test_calls_that_end_after_all_stop_counting(log: Log, board: Board) -> None:
    gates = {n: threading.Event() for n in range(1, 9)}

    def echo(ask: Ask) -> Answer:
        gates[-ask.n].wait(20)
        return Answer(n=ask.n)

    mesh = topology(timeout="20ms", lanes=1)
    await log.create_topics(topic_specs(mesh))
    stop = asyncio.Event()
    crew = worker(log, board, echo, mesh, abandoned_max=2)
    running = asyncio.create_task(crew.run(stop))
    for n in gates:
        await append(log, task(-n))
        await answers(log, n)
        gates[n].set()
        await until(lambda n=n: counts(crew).late == n)  # type: ignore[misc]
    stop.set()
    async with asyncio.timeout(20):
        await running
    assert counts(crew).shown() == {"timed_out": 8, "abandoned": 8, "late": 8}


async def test_a_function_that_ignores_even_the_end_does_not_keep_the_worker(log: Log, board: Board) -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def echo(ask: Ask) -> Answer:
        begun.set()
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return Answer(n=0)

    mesh = topology(timeout="60s")
    await log.create_topics(topic_specs(mesh))
    stop = asyncio.Event()
    crew = worker(log, board, echo, mesh, drain_ms=50, grace_ms=50)
    running = asyncio.create_task(crew.run(stop))
    await append(log, task(1))
    await begun.wait()
    stop.set()
    try:
        async with asyncio.timeout(10):
            await running
        assert crew.abandoned_calls == 1
        assert await read_all(log, TOPOLOGY.inbox) == []
    finally:
        gate.set()
    await until(lambda: crew.abandoned_calls == 0)
    assert await read_all(log, TOPOLOGY.inbox) == []


@pytest.mark.parametrize("who", ["echo", "*"])
async def test_what_mesh_control_says_holds_from_the_beginning_until_it_is_taken_back(
    log: Log, board: Board, who: str
) -> None:
    begun: list[int] = []

    async def echo(ask: Ask) -> Answer:
        begun.append(ask.n)
        return Answer(n=ask.n)

    await log.create_topics(topic_specs(TOPOLOGY))
    stop, crew = asyncio.Event(), worker(log, board, echo)
    await append(log, turned("stopped", who), task(1), task(2))
    running = asyncio.create_task(crew.run(stop))
    await crew.wait_ready()
    assert crew.consumers["echo"].paused
    assert begun == []
    await append(log, turned("running", who))
    await answers(log, 2)
    await append(log, turned("stopped", "another"), task(3))
    await answers(log, 3)
    await append(log, turned("stopped", who))
    await until(lambda: crew.consumers["echo"].paused)
    stop.set()
    async with asyncio.timeout(20):
        await running
    assert sorted(begun) == [1, 2, 3]


def turned(state: str, who: str) -> NewRecord:
    """Return a record of mesh.control about an agent, or all."""
    return control_record(Switch("agent", who, state, "ann"), TOPOLOGY, event_id=f"{who}-{state}".replace("*", "all"))
