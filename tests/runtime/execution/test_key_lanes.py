"""Lanes: order within a key, parallel between keys, bounded."""

import asyncio

import pytest

from mesh.runtime.execution import key_lanes as module
from mesh.runtime.execution.key_lanes import STARTING_MIN, KeyLanes


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

    lanes = KeyLanes(handle, lanes_max=8)
    for n in range(100):
        lanes.put(b"one", n)
    async with asyncio.timeout(20):
        await lanes.wait_below(1)
    assert seen == list(range(100))


async def test_a_thousand_keys_wait_at_the_same_time() -> None:
    gate, all_in = asyncio.Event(), asyncio.Event()

    async def handle(_: int) -> None:
        if lanes.running == 1_000:
            all_in.set()
        await gate.wait()

    lanes = KeyLanes(handle, lanes_max=1_000)
    for n in range(1_500):
        lanes.put(b"%d" % n, n)
    async with asyncio.timeout(20):
        await all_in.wait()
        assert (lanes.running, lanes.queued) == (1_000, 500)
        gate.set()
        await lanes.wait_below(1)


async def test_few_begin_and_soon_there_are_as_many_as_wait() -> None:
    gate = asyncio.Event()

    async def handle(_: int) -> None:
        await gate.wait()

    lanes = KeyLanes(handle, lanes_max=2_000)
    others = len(asyncio.all_tasks())
    for n in range(1_000):
        lanes.put(b"%d" % n, n)
    assert len(asyncio.all_tasks()) - others <= STARTING_MIN
    turns = 0
    while lanes.running < 1_000 and turns < 12:
        await asyncio.sleep(0)
        turns += 1
    assert (lanes.running, lanes.queued) == (1_000, 0)
    gate.set()
    async with asyncio.timeout(20):
        await lanes.wait_below(1)


async def test_a_runner_that_yields_to_the_loop_is_not_replaced_by_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_MS_MAX", 0.0)
    runners: set[asyncio.Task[None] | None] = set()

    async def handle(_: int) -> None:
        runners.add(asyncio.current_task())

    lanes = KeyLanes(handle, lanes_max=2_000)
    for n in range(1_000):
        lanes.put(b"%d" % n, n)
    async with asyncio.timeout(20):
        await lanes.wait_below(1)
    assert len(runners) <= STARTING_MIN + 1


async def test_a_blocked_key_does_not_hold_up_the_others() -> None:
    gate = asyncio.Event()
    done: list[bytes] = []

    async def handle(key: bytes) -> None:
        if key == b"slow":
            await gate.wait()
        done.append(key)

    lanes = KeyLanes(handle, lanes_max=2)
    for key in (b"slow", b"slow", b"a", b"b", b"c"):
        lanes.put(key, key)
    async with asyncio.timeout(20):
        await lanes.wait_below(3)
    assert done == [b"a", b"b", b"c"]
    gate.set()
    async with asyncio.timeout(20):
        await lanes.wait_below(1)
    assert done[3:] == [b"slow", b"slow"]


async def test_what_is_put_while_a_runner_ends_is_not_forgotten() -> None:
    done: list[int] = []

    async def handle(n: int) -> None:
        done.append(n)
        if n < 50:
            # Runs when the runner has ended, before its callback.
            asyncio.get_running_loop().call_soon(lanes.put, b"%d" % (n + 1), n + 1)

    lanes = KeyLanes(handle, lanes_max=1)
    lanes.put(b"0", 0)
    async with asyncio.timeout(20):
        while len(done) < 51:  # noqa: ASYNC110  # a turn of the loop each
            await asyncio.sleep(0)


async def test_a_long_series_of_instant_work_yields_to_the_loop() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def handle(_: int) -> None:
        sum(range(2_000))

    lanes = KeyLanes(handle, lanes_max=1)
    ticker = asyncio.create_task(tick())
    for n in range(5_000):
        lanes.put(b"%d" % n, n)
    async with asyncio.timeout(20):
        await lanes.wait_below(1)
    ticker.cancel()
    assert ticks > 3


async def test_a_handler_that_breaks_its_contract_is_reported() -> None:
    async def handle(_: int) -> None:
        raise RuntimeError("broken")

    lanes = KeyLanes(handle, lanes_max=1)
    lanes.put(b"k", 1)
    with pytest.raises(RuntimeError, match="broken"):
        await lanes.wait_below(1)
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

    lanes = KeyLanes(handle, lanes_max=1)
    lanes.put(b"k", 1)
    lanes.put(b"k", 2)
    await asyncio.sleep(0)
    lanes.cancel()
    async with asyncio.timeout(20):
        await cancelled.wait()
        await lanes.wait_below(1)
    assert lanes.queued == 0


# ------------------------------------------------------------------------------------------ hold, interrupt, release


async def test_while_held_nothing_new_begins_and_release_goes_on_in_order() -> None:
    gate = asyncio.Event()
    seen: list[tuple[bytes, int]] = []

    async def handle(item: tuple[bytes, int]) -> None:
        await gate.wait()
        seen.append(item)

    lanes = KeyLanes(handle, lanes_max=4)
    for n in range(3):
        for key in (b"a", b"b"):
            lanes.put(key, (key, n))
    await asyncio.sleep(0)
    assert lanes.running == 2
    lanes.pause()
    gate.set()
    async with asyncio.timeout(20):
        await lanes.wait_idle()
    lanes.put(b"c", (b"c", 0))
    for _ in range(5):
        await asyncio.sleep(0)
    assert (sorted(seen), lanes.queued, lanes.running) == ([(b"a", 0), (b"b", 0)], 5, 0)
    lanes.resume()
    async with asyncio.timeout(20):
        await lanes.wait_below(1)
    for key in (b"a", b"b"):
        assert [n for k, n in seen if k == key] == [0, 1, 2]
    assert (b"c", 0) in seen


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_interrupted_item_is_the_first_of_its_key_again(at_once: bool) -> None:
    gate = asyncio.Event()
    begun: list[int] = []
    done: list[int] = []

    async def handle(n: int) -> None:
        begun.append(n)
        await gate.wait()
        done.append(n)

    lanes = KeyLanes(handle, lanes_max=4)
    lanes.put(b"k", 1)
    lanes.put(b"k", 2)
    await asyncio.sleep(0)
    lanes.pause()
    lanes.interrupt()
    if not at_once:
        async with asyncio.timeout(20):
            await lanes.wait_idle()
        assert (lanes.queued, lanes.running) == (2, 0)
    gate.set()
    lanes.resume()
    async with asyncio.timeout(20):
        await lanes.wait_below(1)
    assert begun == [1, 1, 2]
    assert done == [1, 2]
    assert (lanes.queued, lanes.running) == (0, 0)


# ------------------------------------------------------------------------------------------------------------ abandon


class Stubborn:
    """A handler that does not let itself be cancelled, for items below 0."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.done: list[int] = []
        self.runners: dict[int, asyncio.Task[None]] = {}

    async def __call__(self, n: int) -> None:
        runner = asyncio.current_task()
        assert runner is not None
        self.runners[n] = runner
        while n < 0 and not self.gate.is_set():
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                continue
        self.done.append(n)


async def test_an_abandoned_item_frees_its_slot_and_its_key() -> None:
    handle = Stubborn()
    lanes = KeyLanes(handle, lanes_max=1)
    for n in (-1, 1, 2):
        lanes.put(b"k", n)
    lanes.put(b"other", 3)
    await asyncio.sleep(0)
    lanes.abandon(handle.runners[-1])
    assert (lanes.running, lanes.abandoned_calls) == (0, 1)
    async with asyncio.timeout(20):
        await lanes.wait_below(1)
    assert sorted(handle.done) == [1, 2, 3]
    handle.gate.set()
    async with asyncio.timeout(20):
        await lanes.wait_abandoned(5_000)
    assert (handle.done[-1], lanes.running, lanes.queued, lanes.abandoned_calls) == (-1, 0, 0, 0)


async def test_an_abandoned_item_may_be_kept_for_later() -> None:
    handle = Stubborn()
    lanes = KeyLanes(handle, lanes_max=1)
    lanes.put(b"k", -1)
    lanes.put(b"k", 1)
    await asyncio.sleep(0)
    lanes.pause()
    lanes.abandon(handle.runners.pop(-1), keep=True)
    assert (lanes.queued, lanes.running) == (2, 0)
    lanes.resume()
    async with asyncio.timeout(20):
        while -1 not in handle.runners:  # noqa: ASYNC110  # two turns of the loop
            await asyncio.sleep(0)
        handle.gate.set()
        await lanes.wait_below(1)
    assert handle.done == [-1, -1, 1]


async def test_a_call_that_ignores_even_the_end_is_counted() -> None:
    handle = Stubborn()
    lanes = KeyLanes(handle, lanes_max=2)
    lanes.put(b"k", -1)
    lanes.put(b"l", -2)
    await asyncio.sleep(0)
    lanes.abandon(handle.runners[-1])
    lanes.cancel()
    await lanes.wait_abandoned(20)
    assert lanes.abandoned_calls == 2
    handle.gate.set()
    await lanes.wait_abandoned(5_000)
    assert lanes.abandoned_calls == 0


async def test_an_error_from_elsewhere_ends_the_wait_for_room_as_one_of_a_handler_does() -> None:
    begun = asyncio.Event()

    async def handle(_: int) -> None:
        begun.set()
        await asyncio.Event().wait()

    lanes = KeyLanes(handle, lanes_max=1)
    lanes.put(b"k", 1)
    waiting = asyncio.ensure_future(lanes.wait_below(1))
    async with asyncio.timeout(20):
        await begun.wait()
        lanes.fail(OSError("elsewhere"))
        lanes.fail(OSError("later"))
        with pytest.raises(OSError, match="elsewhere"):
            await waiting
    with pytest.raises(OSError, match="elsewhere"):
        lanes.put(b"k", 2)
    lanes.cancel()
    await lanes.wait_abandoned(1_000)
