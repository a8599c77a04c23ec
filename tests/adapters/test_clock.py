"""The machine's clock."""

import time

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Clock

clock: Clock = SystemClock()


def test_wall_time_is_in_milliseconds_since_the_epoch() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= clock.now_ms() <= time.time_ns() // 1_000_000
    assert isinstance(clock.now_ms(), int)


def test_monotonic_time_never_falls_and_is_in_milliseconds() -> None:
    before = time.monotonic()
    times = [clock.monotonic_ms() for _ in range(1_000)]
    assert times == sorted(times)
    assert before * 1_000 - 0.001 <= times[0] <= times[-1] <= time.monotonic() * 1_000 + 0.001


async def test_sleep_lasts_at_least_as_long_as_asked() -> None:
    begun = clock.monotonic_ms()
    await clock.sleep_ms(20)
    assert clock.monotonic_ms() - begun >= 19.9


async def test_a_negative_sleep_is_none() -> None:
    begun = clock.monotonic_ms()
    await clock.sleep_ms(-5_000)
    assert clock.monotonic_ms() - begun < 4_000
