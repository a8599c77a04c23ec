"""A deadline passes by the silence of others, not by the lateness of one's own loop."""

import asyncio

import pytest

from mesh.adapters.deadline import EXTENSION_MS, EXTENSIONS_MAX, Deadline, tolerant_timeout
from tests.adapters.loop_kit import stand_still, turns


async def another(timeout_ms: float) -> None:
    """Until one that was made now has passed: by then any other of that length would have."""
    over = asyncio.Event()
    Deadline(timeout_ms, over.set)
    await over.wait()


async def test_it_passes_once_after_its_time_and_a_second_look() -> None:
    passed: list[float] = []
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    over = asyncio.Event()

    def end() -> None:
        passed.append(loop.time() - began_s)
        over.set()

    Deadline(50, end)
    async with asyncio.timeout(10):
        await over.wait()
        await another(50)
    assert len(passed) == 1
    assert passed[0] >= 0.050 + EXTENSION_MS / 1000


async def test_a_cancelled_one_does_not_pass() -> None:
    passed: list[None] = []
    deadline = Deadline(1, lambda: passed.append(None))
    deadline.cancel()
    async with asyncio.timeout(10):
        await another(1)
    assert not passed


async def test_it_moves_on_while_others_answer() -> None:
    loop = asyncio.get_running_loop()
    last_answer_s = [loop.time()]
    over = asyncio.Event()
    Deadline(100, over.set, last_answer_s=lambda: last_answer_s[0])
    until_s = loop.time() + 0.5
    while loop.time() < until_s:
        last_answer_s[0] = loop.time()
        await asyncio.sleep(0.01)
        if loop.time() - last_answer_s[0] < 0.1:
            assert not over.is_set()
    async with asyncio.timeout(10):
        await over.wait()
    assert loop.time() - last_answer_s[0] >= 0.1


async def test_a_loop_that_is_held_up_again_and_again_reads_what_waits_for_it_first() -> None:
    answered = asyncio.get_running_loop().create_future()
    order: list[str] = []
    deadline = Deadline(30, lambda: order.append("given up"))

    def answer() -> None:
        order.append("answered")
        deadline.cancel()
        answered.set_result(None)

    # Ten turns late by far more than the second look; what it waits for comes in the last of them.
    turns(10, lambda: stand_still(0.05))
    asyncio.get_running_loop().call_later(0.45, answer)
    await answered
    assert order == ["answered"]


async def test_a_loop_that_is_always_late_gives_up_all_the_same() -> None:
    over = asyncio.Event()
    Deadline(10, over.set)
    looked = 0
    while not over.is_set():
        stand_still(0.05)
        await asyncio.sleep(0)
        looked += 1
        assert looked < 10 * EXTENSIONS_MAX
    assert looked >= EXTENSIONS_MAX / 2


async def test_a_block_that_lasts_longer_is_cancelled_and_raises() -> None:
    with pytest.raises(TimeoutError):
        async with tolerant_timeout(10) as limit:
            await asyncio.Event().wait()
    assert limit.expired()


async def test_a_block_whose_loop_stands_still_ends_as_it_would_have() -> None:
    async with tolerant_timeout(30) as limit:
        for _ in range(5):
            stand_still(0.05)
            await asyncio.sleep(0)
    assert not limit.expired()
