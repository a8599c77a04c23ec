"""Answers kept on the board: a task that is delivered again does not call its function again."""

import asyncio
from dataclasses import replace
from typing import Any

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Board, Log
from mesh.core.errors import BoardUnavailable
from mesh.core.protocol.event import FAILED, NO_USAGE, SUCCEEDED, TASK, Event, Fault, Part, Usage
from mesh.core.protocol.record import NewRecord
from mesh.core.task.result import failure_event, success_event
from mesh.services.worker.cache import ResultCache
from mesh.services.worker.counts import Counts
from tests.services.conftest import append, read_all, settled, working
from tests.services.worker.counting_agents import Answer, Ask, answers, counts, task, topology, until, worker

TASK_1 = Event("t1:1", "/mesh/t", "ask", TASK, "r1", b"{}", agent="echo", task_id="t1", depth=1, path=("echo",))
LONG_MS = 600_000


class Model:
    """Counts its calls, and answers when it may."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer = success_event(TASK_1, [Part("answer", '{"text":"grüße"}'.encode())], Usage(5, 6))

    async def __call__(self) -> Event:
        self.calls += 1
        await self.gate.wait()
        return self.answer


def cache(board: Board, *, holder: str = "one", lease_ms: int = LONG_MS) -> tuple[ResultCache, Counts]:
    counts = Counts()
    made = ResultCache(board, SystemClock(), counts, agent="echo", ttl_ms=LONG_MS, holder=holder, lease_ms=lease_ms)
    return made, counts


async def test_what_was_answered_is_not_asked_again(board: Board) -> None:
    model = Model()
    first, _ = cache(board)
    other, counted = cache(board, holder="two")
    answer = await first.through(TASK_1, model)
    again = await other.through(replace(TASK_1, traceparent="00-1"), model)
    assert model.calls == 1
    assert (again.id, again.data, again.usage, again.kind) == (answer.id, answer.data, Usage(5, 6), SUCCEEDED)
    assert again.traceparent == "00-1"
    assert counted.shown() == {"cached": 1}


async def test_another_attempt_and_another_task_are_asked_for_themselves(board: Board) -> None:
    model = Model()
    results, counted = cache(board)
    for id in ("t1:1", "t1:2", "t2:1"):
        await results.through(replace(TASK_1, id=id), model)
    assert (model.calls, counted.shown()) == (3, {})


async def test_a_worker_with_the_same_task_waits_for_the_answer_of_the_other(board: Board) -> None:
    model = Model()
    model.gate.clear()
    one, _ = cache(board)
    two, counted = cache(board, holder="two")
    first = asyncio.create_task(one.through(TASK_1, model))
    await until(lambda: model.calls == 1)
    second = asyncio.create_task(two.through(TASK_1, model))
    done, _ = await asyncio.wait([second], timeout=0.3)
    assert not done
    model.gate.set()
    async with asyncio.timeout(20):
        found = await asyncio.gather(first, second)
    assert (model.calls, found[0].data, counted.cached) == (1, found[1].data, 1)


async def test_a_lease_passes_when_its_holder_has_died(board: Board) -> None:
    model = Model()
    model.gate.clear()
    dead, _ = cache(board, lease_ms=100)
    first = asyncio.create_task(dead.through(TASK_1, model))
    await until(lambda: model.calls == 1)
    first.cancel()
    await asyncio.wait([first])
    model.gate.set()
    heir, counted = cache(board, holder="two")
    async with asyncio.timeout(20):
        await heir.through(TASK_1, model)
    assert (model.calls, counted.shown()) == (2, {})


async def test_a_lease_is_renewed_as_long_as_the_call_lasts(board: Board) -> None:
    model = Model()
    model.gate.clear()
    one, _ = cache(board, lease_ms=1_000)
    two, _ = cache(board, holder="two")
    renewing = asyncio.create_task(one.renew())
    first = asyncio.create_task(one.through(TASK_1, model))
    await until(lambda: model.calls == 1)
    second = asyncio.create_task(two.through(TASK_1, model))
    done, _ = await asyncio.wait([second], timeout=1.6)
    assert not done
    model.gate.set()
    async with asyncio.timeout(20):
        await asyncio.gather(first, second)
    assert model.calls == 1
    renewing.cancel()


async def test_a_call_that_this_process_gave_up_is_not_waited_for(board: Board) -> None:
    model = Model()
    model.gate.clear()
    results, _ = cache(board)
    first = asyncio.create_task(results.through(TASK_1, model))
    await until(lambda: model.calls == 1)
    first.cancel()
    await asyncio.wait([first])
    model.gate.set()
    async with asyncio.timeout(20):
        await results.through(TASK_1, model)
    assert model.calls == 2


async def test_failures_are_not_kept(board: Board) -> None:
    model = Model()
    model.answer = failure_event(TASK_1, Fault("exception", "no"), NO_USAGE)
    results, counted = cache(board)
    assert (await results.through(TASK_1, model)).kind == FAILED
    assert (await results.through(TASK_1, model)).kind == FAILED
    assert (model.calls, counted.cached) == (2, 0)


async def test_an_answer_too_large_for_the_board_is_given_and_counted(board: Board) -> None:
    model = Model()
    model.answer = success_event(TASK_1, [Part("answer", b'"%s"' % (b"x" * 70_000))], NO_USAGE)
    results, counted = cache(board)
    assert len((await results.through(TASK_1, model)).data) == 70_002
    assert counted.shown() == {"uncached": 1}


class Gone:
    """A board that is gone."""

    def __init__(self) -> None:
        self.asked = 0

    async def lease(self, key: str, value: bytes, *, ttl_ms: int, expect: bytes = b"") -> bytes:
        self.asked += 1
        raise BoardUnavailable("no answer within 250 ms")


async def test_without_the_board_functions_are_called_and_the_board_is_left_alone_for_a_while() -> None:
    model, gone = Model(), Gone()
    board: Any = gone
    results, counted = cache(board)
    for n in range(5):
        await results.through(replace(TASK_1, id=f"t{n}:1"), model)
    assert (model.calls, gone.asked, counted.shown()) == (5, 1, {"uncached": 5})


# ------------------------------------------------------------------------------------------------------- in a worker


def again(record: NewRecord) -> NewRecord:
    """The same task once more, as after a crash."""
    return record._replace(partition=0)


async def test_an_agent_with_a_cache_is_called_once_for_a_task_that_comes_twice(log: Log, board: Board) -> None:
    calls = 0

    async def echo(ask: Ask) -> Answer:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.05)
        return Answer(n=ask.n + calls)

    mesh = topology(more=", cache: 1h")
    crew = worker(log, board, echo, mesh)
    async with working(log, mesh, crew.run):
        await append(log, again(task(1, key="a")), again(task(1, key="b")))
        both = await answers(log, 2)
        await append(log, again(task(1)))
        await settled(log, "mesh.echo", mesh.tasks("echo"))
    assert calls == 1
    assert {(a.id, a.data) for a in both} == {("t1:1:succeeded", b'{"n":2}')}
    assert len(await read_all(log, mesh.inbox)) == 3
    assert counts(crew).shown() == {"succeeded": 3, "cached": 2}
