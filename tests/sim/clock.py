"""The clock of one simulated process: the loop's time, and its own idea of the date."""

import asyncio

from tests.sim.world import Host, World


class SimClock:
    """`Clock` of a host; its wall time is off by the host's skew."""

    def __init__(self, world: World, host: Host) -> None:
        self._world = world
        self._host = host

    def now_ms(self) -> int:
        return self._world.now_ms + self._host.skew_ms

    def monotonic_ms(self) -> float:
        return self._world.loop.time() * 1000

    async def sleep_ms(self, delay_ms: float) -> None:
        await asyncio.sleep(max(0.0, delay_ms) / 1000)
