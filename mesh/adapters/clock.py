"""The operating system's clock."""

import asyncio
import time

_UPTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """`Clock` of the machine."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> float:
        return time.monotonic_ns() / 1_000_000

    def uptime_ms(self) -> float:
        return time.clock_gettime_ns(_UPTIME) / 1_000_000

    async def sleep_ms(self, delay_ms: float) -> None:
        await asyncio.sleep(max(0.0, delay_ms) / 1000)
