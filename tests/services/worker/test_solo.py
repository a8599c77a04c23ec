"""Who runs beside whom."""

import asyncio

import pytest

from mesh.core.crashes import MARKED_MAX
from mesh.services.worker.solo import Solo


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_wants_to_be_alone_waits_for_all_and_keeps_newcomers_out() -> None:
    solo = Solo()
    await solo.enter()
    await solo.enter()
    alone = asyncio.create_task(solo.enter_alone())
    await turns()
    late = asyncio.create_task(solo.enter())
    await turns()
    solo.leave()
    await turns()
    assert not alone.done()
    solo.leave()
    async with asyncio.timeout(5):
        await alone
    await turns()
    assert not late.done()
    assert solo.inside == 0
    solo.leave_alone()
    async with asyncio.timeout(5):
        await late
    assert (solo.inside, solo.wanted) == (1, 0)


async def test_several_are_alone_one_after_another_before_anybody_else() -> None:
    solo = Solo()
    order: list[str] = []

    async def alone(name: str) -> None:
        await solo.enter_alone()
        order.append(f"{name} in")
        await turns()
        order.append(f"{name} out")
        solo.leave_alone()

    async def other() -> None:
        await solo.enter()
        order.append("other")
        solo.leave()

    await solo.enter()
    tasks = [asyncio.create_task(alone("a")), asyncio.create_task(alone("b"))]
    await turns()
    tasks.append(asyncio.create_task(other()))
    await turns()
    solo.leave()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    assert order == ["a in", "a out", "b in", "b out", "other"]
    assert (solo.inside, solo.wanted) == (0, 0)


@pytest.mark.parametrize("second", [True, False])
async def test_who_gives_up_waiting_to_be_alone_stands_in_nobodys_way(second: bool) -> None:
    solo = Solo()
    await solo.enter()
    first = asyncio.create_task(solo.enter_alone())
    await turns()
    waiting = asyncio.create_task(solo.enter_alone()) if second else first
    await turns()
    waiting.cancel()
    await asyncio.wait([waiting])
    solo.leave()
    if second:
        async with asyncio.timeout(5):
            await first
        solo.leave_alone()
    async with asyncio.timeout(5):
        await solo.enter()
    assert (solo.inside, solo.wanted) == (1, 0)


async def test_only_so_many_suspects_are_at_work_at_once_whatever_their_partition() -> None:
    solo = Solo()
    for _ in range(MARKED_MAX):
        await solo.enter_marked()
    late = asyncio.create_task(solo.enter_marked())
    await solo.enter()  # who is not suspected need not wait
    await turns()
    assert not late.done()
    solo.leave_marked()
    async with asyncio.timeout(5):
        await late
    assert solo.inside == MARKED_MAX + 1


async def test_a_suspect_that_is_interrupted_while_it_waits_keeps_nobodys_place() -> None:
    solo = Solo()
    await solo.enter_alone()
    waiting = [asyncio.create_task(solo.enter_marked()) for _ in range(MARKED_MAX + 1)]
    await turns()
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    solo.leave_alone()
    async with asyncio.timeout(5):
        for _ in range(MARKED_MAX):
            await solo.enter_marked()
