"""Waiting for the ends of runs: what it costs, and what becomes of those that wait long."""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import mesh.runtime.waiters
from mesh.core.protocol.event import OUTCOME, Event
from mesh.runtime.waiters import Answer, RunWaiters


class Told(Event):
    """One that can be watched for its end."""


def told(run_id: str) -> Told:
    return Told("id", "/mesh/t", "mesh.run.completed", OUTCOME, run_id, b"{}")


async def nowhere(run_id: str, answer: Answer) -> None:
    raise AssertionError(f"{run_id} has no reason to look back")


async def waiting(waits: RunWaiters, *run_ids: str, timeout_s: float = 60) -> "list[asyncio.Task[Event]]":
    tasks = [asyncio.create_task(waits.answer(run_id, timeout_s)) for run_id in run_ids]
    await asyncio.sleep(0)
    return tasks


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for looking back comes at once."""
    monkeypatch.setattr(mesh.runtime.waiters, "LOOK_BACK_AFTER_S", 0.001)
    monkeypatch.setattr(mesh.runtime.waiters, "TICK_S", 0.001)


async def test_all_waits_for_a_run_get_its_outcome_and_no_others() -> None:
    waits = RunWaiters(nowhere)
    first, second, other = await waiting(waits, "a", "a", "b")
    event = told("a")
    waits.notify(event)
    assert (await first, await second) == (event, event)
    assert not other.done()
    other.cancel()


async def test_a_thousand_waits_take_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), []
    call_at = loop.call_at

    def counted(when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        timers.append(callback)
        return call_at(when, callback, *args)

    monkeypatch.setattr(loop, "call_at", counted)
    waits = RunWaiters(nowhere)
    names = [f"r{n}" for n in range(1_000)]
    tasks = await waiting(waits, *names)
    for name in names:
        waits.notify(told(name))
    await asyncio.gather(*tasks)
    assert len(timers) == 1


async def test_a_client_that_still_waits_after_a_while_looks_back(soon: None) -> None:
    async def found(run_id: str, answer: Answer) -> None:
        answer.set_result(told(run_id))

    waits = RunWaiters(found)
    for _ in range(2):  # the timer begins anew for those who come later
        tasks = await waiting(waits, "a", "b")
        assert [(await task).run_id for task in tasks] == ["a", "b"]


@pytest.mark.parametrize("timeout_s", [0, 0.0005, 0.01])
async def test_a_wait_has_its_end_before_and_after_it_looked_back(soon: None, timeout_s: float) -> None:
    ended = asyncio.Event()

    async def in_vain(run_id: str, answer: Answer) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await RunWaiters(in_vain).answer("a", timeout_s)
    if timeout_s == 0.01:
        await ended.wait()  # the search ends with its wait


async def test_a_failure_reaches_all_waits() -> None:
    waits = RunWaiters(nowhere)
    tasks = await waiting(waits, "a", "b")
    waits.fail(ValueError("gone"))
    for task in tasks:
        with pytest.raises(ValueError, match="gone"):
            await task


async def test_a_waiter_that_leaves_is_forgotten_and_the_others_wait_on() -> None:
    waits = RunWaiters(nowhere)
    first, second = await waiting(waits, "a", "a")
    first.cancel()
    await asyncio.wait([first])
    waits.notify(told("a"))
    assert (await second).run_id == "a"


async def test_an_answer_is_not_kept_once_it_was_received() -> None:
    waits = RunWaiters(nowhere)
    (task,) = await waiting(waits, "a")
    event = told("a")
    waits.notify(event)
    await task
    kept = weakref.ref(event)
    del event, task
    await asyncio.sleep(0)  # the loop itself lets go of what it has just done
    assert kept() is None
