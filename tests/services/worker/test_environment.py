"""Slots for suspected tasks: many callers with one each, or one with all."""

import asyncio

import pytest

from mesh.core.protocol.event import SUCCEEDED, TASK, Event
from mesh.core.task.poison import MARKED_MAX
from mesh.services.worker import environment
from mesh.services.worker.environment import MarkSlots, Recorded


async def test_a_limited_number_or_a_single_caller_has_slots() -> None:
    slots = MarkSlots()
    for _ in range(MARKED_MAX):
        await slots.acquire(1)
    alone = asyncio.create_task(slots.acquire(MARKED_MAX))
    await asyncio.sleep(0)
    late = asyncio.create_task(slots.acquire(1))
    for _ in range(MARKED_MAX):
        await asyncio.sleep(0)
        assert not alone.done()
        slots.release(1)
    await alone
    await asyncio.sleep(0)
    assert not late.done()
    slots.release(MARKED_MAX)
    await late
    assert slots.free == MARKED_MAX - 1


async def test_a_cancelled_caller_keeps_no_slot() -> None:
    slots = MarkSlots()
    await slots.acquire(2)
    waiting = [asyncio.create_task(slots.acquire(MARKED_MAX)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert slots.free == MARKED_MAX - 2


def task(id: str, run_id: str = "r") -> Event:
    return Event(f"{id}:1", "/m", "ask", TASK, run_id, b"1", 77, agent="a", task_id=id, depth=2, path=("b", "a"))


async def echo(asked: Event, attempt: None) -> Event | None:
    return Event("e", "/a", "said", SUCCEEDED, asked.run_id, asked.data, time=asked.time)


async def test_a_task_has_its_recorded_time_and_input_and_a_recorded_answer_is_given_without_a_call() -> None:
    kept = Event("t2:1:succeeded", "/a", "said", SUCCEEDED, "r", b"kept", 5, cause_id="t2:1", task_id="t2")
    answer = Recorded({"t1": "then"}, {"t2:1": kept}, {"t1": b"edited"}).around(echo)
    first, second, third = [await answer(task(id), None) for id in ("t1", "t2", "t3")]
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.time, first.data) == ("then", b"edited")
    assert (second.data, second.at_ms, second.depth, second.path) == (b"kept", 77, 2, ("b", "a"))
    assert (third.time, third.data) == ("", b"1")


async def test_answers_of_a_run_are_given_in_their_recorded_order(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    answer = Recorded(orders={"r": ["t1:1", "t2:1", "t3:1"]}).around(echo)

    async def give(id: str, run_id: str = "r") -> None:
        await answer(task(id, run_id), None)
        order.append(id)

    async with asyncio.TaskGroup() as group:
        for id in ("t3", "t2"):
            group.create_task(give(id))
        group.create_task(give("t3", "other"))
        await asyncio.sleep(0.01)
        assert order == ["t3"]  # of the other run, which waits for nothing
        group.create_task(give("t9"))
        group.create_task(give("t1"))
    assert order[1:] == ["t9", "t1", "t2", "t3"]
    monkeypatch.setattr(environment, "ORDER_WAIT_MS", 20)
    missing = Recorded(orders={"r": ["t1:1", "t2:1"]}).around(echo)
    async with asyncio.timeout(20):
        await missing(task("t2"), None)
