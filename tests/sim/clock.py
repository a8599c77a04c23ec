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

    def uptime_ms(self) -> float:
        return self.monotonic_ms()

    async def sleep_ms(self, delay_ms: float) -> None:
        if delay_ms <= 0:
            await asyncio.sleep(0)
            return
        loop = self._world.loop  # as asyncio.sleep does, which is asked for half of all that happens
        over = loop.create_future()
        timer = loop.call_at(loop.time() + delay_ms / 1000, _end, over)
        try:
            await over
        finally:
            timer.cancel()


def _end(over: "asyncio.Future[None]") -> None:
    if not over.done():
        over.set_result(None)
