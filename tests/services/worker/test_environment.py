"""Slots for suspected tasks: many callers with one each, or one with all."""

import asyncio

from mesh.core.task.poison import MARKED_MAX
from mesh.services.worker.environment import MarkSlots


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
