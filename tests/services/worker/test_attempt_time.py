"""The one timer that all calls of an agent share."""

import asyncio
from typing import Any

import pytest

from mesh.adapters.ports import Board, Log
from mesh.app.wiring import topic_specs
from mesh.services.worker.attempt import WAITED_MS_MIN
from tests.services.conftest import append, working
from tests.services.worker.counting_agents import TOPOLOGY, Answer, Ask, answers, counts, task, topology, until, worker


async def test_each_attempt_has_its_whole_time_regardless_of_earlier_ones(log: Log, board: Board) -> None:
    clock = asyncio.get_running_loop().time
    took_s: dict[int, float] = {}

    async def echo(ask: Ask) -> Answer:
        began_s = clock()
        try:
            await asyncio.sleep(0.1 if ask.n == 0 else 60)
        finally:
            took_s[ask.n] = clock() - began_s
        return Answer(n=ask.n)

    mesh = topology(timeout="300ms")
    crew = worker(log, board, echo, mesh)
    async with working(log, mesh, crew.run):
        await append(log, task(0), task(1))
        await answers(log, 1)
        await append(log, task(2), task(3))
        found = {a.task_id: a for a in await answers(log, 4)}
    assert found["t0"].kind == "succeeded"
    assert {a.fault.code for a in found.values() if a.fault is not None} == {"timed_out"}
    assert min(took_s[n] for n in (1, 2, 3)) >= 0.299
    assert counts(crew).shown() == {"succeeded": 1, "timed_out": 3}


class Unwilling(asyncio.Future[None]):
    """Cannot be cancelled, and says so in the wrong way."""

    def cancel(self, msg: Any = None) -> bool:
        raise RuntimeError("not now")


async def test_a_call_that_cannot_be_cancelled_takes_no_other_its_time_limit(log: Log, board: Board) -> None:
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    unwilling = Unwilling()

    async def echo(ask: Ask) -> Answer:
        await (unwilling if ask.n == 0 else asyncio.Event().wait())
        return Answer(n=ask.n)

    mesh = topology(timeout="200ms")
    async with working(log, mesh, worker(log, board, echo, mesh).run):
        await append(log, task(0), task(1), task(2))
        found = {a.task_id: a.fault.code for a in await answers(log, 2) if a.fault is not None}
        unwilling.set_result(None)
        await answers(log, 3)
    assert [found.get(id) for id in ("t1", "t2")] == ["timed_out", "timed_out"]
    assert "not now" in repr(said[0]["exception"])


async def test_a_hundred_calls_need_no_hundred_timers(log: Log, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    timers: list[str] = []
    call_at = loop.call_at

    def counted(when: float, callback: Any, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        timers.append(getattr(callback, "__qualname__", ""))
        return call_at(when, callback, *args, **kwargs)

    async def echo(ask: Ask) -> Answer:
        await asyncio.sleep(0)
        return Answer(n=ask.n)

    monkeypatch.setattr(loop, "call_at", counted)
    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, *(task(n) for n in range(100)))
        await answers(log, 100)
    assert 1 <= timers.count("Caller._check_limits") <= 10


async def test_an_answer_says_how_long_its_task_lay_on_the_topic(log: Log, board: Board) -> None:
    async def echo(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    await log.create_topics(topic_specs(TOPOLOGY))
    await append(log, task(1))
    stored_ms = log.now_ms()
    await until(lambda: log.now_ms() - stored_ms >= WAITED_MS_MIN)
    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        (answer,) = await answers(log, 1)
    assert WAITED_MS_MIN <= answer.waited_ms <= log.now_ms() - stored_ms + 5
