"""Lanes: order within a key, parallel between keys, bounded."""

import asyncio

import pytest

from mesh.wire.lanes import Lanes


async def test_the_same_key_runs_in_order_and_never_twice_at_once() -> None:
    seen: list[int] = []
    inside = 0

    async def handle(n: int) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        await asyncio.sleep(0)
        seen.append(n)
        inside -= 1

    lanes = Lanes(handle, lanes_max=8)
    for n in range(100):
        lanes.put(b"one", n)
    async with asyncio.timeout(5):
        await lanes.below(1)
    assert seen == list(range(100))


async def test_a_thousand_keys_wait_at_the_same_time() -> None:
    gate, all_in = asyncio.Event(), asyncio.Event()

    async def handle(_: int) -> None:
        if lanes.running == 1_000:
            all_in.set()
        await gate.wait()

    lanes = Lanes(handle, lanes_max=1_000)
    for n in range(1_500):
        lanes.put(b"%d" % n, n)
    async with asyncio.timeout(5):
        await all_in.wait()
        assert (lanes.running, lanes.queued) == (1_000, 500)
        gate.set()
        await lanes.below(1)


async def test_a_blocked_key_does_not_hold_up_the_others() -> None:
    gate = asyncio.Event()
    done: list[bytes] = []

    async def handle(key: bytes) -> None:
        if key == b"slow":
            await gate.wait()
        done.append(key)

    lanes = Lanes(handle, lanes_max=2)
    for key in (b"slow", b"slow", b"a", b"b", b"c"):
        lanes.put(key, key)
    async with asyncio.timeout(5):
        await lanes.below(3)
    assert done == [b"a", b"b", b"c"]
    gate.set()
    async with asyncio.timeout(5):
        await lanes.below(1)
    assert done[3:] == [b"slow", b"slow"]


async def test_a_long_row_of_instant_work_lets_the_loop_breathe() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def handle(_: int) -> None:
        sum(range(2_000))

    lanes = Lanes(handle, lanes_max=1)
    ticker = asyncio.create_task(tick())
    for n in range(5_000):
        lanes.put(b"%d" % n, n)
    async with asyncio.timeout(20):
        await lanes.below(1)
    ticker.cancel()
    assert ticks > 3


async def test_a_handler_that_breaks_its_promise_is_heard() -> None:
    async def handle(_: int) -> None:
        raise RuntimeError("broken")

    lanes = Lanes(handle, lanes_max=1)
    lanes.put(b"k", 1)
    with pytest.raises(RuntimeError, match="broken"):
        await lanes.below(1)
    with pytest.raises(RuntimeError, match="broken"):
        lanes.put(b"k", 2)


async def test_cancel_ends_what_runs_and_drops_what_waits() -> None:
    cancelled = asyncio.Event()

    async def handle(_: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    lanes = Lanes(handle, lanes_max=1)
    lanes.put(b"k", 1)
    lanes.put(b"k", 2)
    await asyncio.sleep(0)
    lanes.cancel()
    async with asyncio.timeout(5):
        await cancelled.wait()
        await lanes.below(1)
    assert lanes.queued == 0
