"""The metronome: each beat once, in order, not before its time."""

import time
from contextlib import aclosing

from bench.metronome import beats


async def test_each_beat_comes_in_order_and_not_before_its_time() -> None:
    began = time.perf_counter() + 0.01
    heard = [(at, time.perf_counter()) async for at in beats(began, 500, 20)]
    assert [round((at - began) * 1_000) for at, _ in heard] == list(range(0, 40, 2))
    assert all(came >= at for at, came in heard)


async def test_what_is_past_comes_at_once() -> None:
    began = time.perf_counter()
    late = [at async for at in beats(began - 3_600, 1, 3_000)]
    assert len(late) == 3_000
    assert time.perf_counter() - began < 5


async def test_a_caller_that_leaves_early_waits_for_no_further_beat() -> None:
    began = time.perf_counter()
    async with aclosing(beats(began, 0.001, 2)) as times:
        async for _ in times:
            break
    assert time.perf_counter() - began < 60  # the second one is due in a quarter of an hour
