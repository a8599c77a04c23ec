"""Fetching: positions in partitions, what is paused, and waiting for more. Members and readers share it."""

import asyncio
from collections.abc import Callable

from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import StoredRecord, TopicPartition
from tests.sim.broker import Broker
from tests.sim.world import TIMEOUT_MS, Host


class Fetcher:
    """Reads on from its positions. `wake` ends a wait early."""

    def __init__(self, broker: Broker, host: Host) -> None:
        self._broker = broker
        self._host = host
        self.positions: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self._woken: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Look again."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def poll(
        self, records_max: int, wait_ms: float, check: Callable[[], None]
    ) -> dict[TopicPartition, list[StoredRecord]]:
        """Records of what is not paused. `check` raises what must come out instead."""
        world = self._broker.world
        until_s = world.loop.time() + wait_ms / 1000
        while True:
            world.check()
            check()
            if self._host.cut:
                await self._cut_off()
            elif self._available():
                await world.moment()
                check()
                taken = self._take(records_max)
                if taken:
                    return taken
            elif world.loop.time() >= until_s:
                return {}
            else:
                await self._wait(until_s)

    async def _cut_off(self) -> None:
        """Wait for a reply that does not come. Raises LogUnavailable after our deadline."""
        future: asyncio.Future[None] = self._broker.world.loop.create_future()
        self._host.mended.append(future)
        try:
            async with asyncio.timeout(TIMEOUT_MS / 1000):
                await future
        except TimeoutError as error:
            raise LogUnavailable(f"nothing was heard for {TIMEOUT_MS} ms", where="sim poll") from error

    async def _wait(self, until_s: float) -> None:
        loop = self._broker.world.loop
        woken: asyncio.Future[None] = loop.create_future()
        self._woken = woken
        for tp in self.positions:
            if tp not in self.paused:
                self._broker.partition(tp).waiting[self] = self.wake
        timer = loop.call_at(until_s, self.wake)
        try:
            await woken
        finally:
            timer.cancel()

    def _available(self) -> list[TopicPartition]:
        """Return the partitions with records to read."""
        paused, partition = self.paused, self._broker.partition
        return [tp for tp, place in self.positions.items() if tp not in paused and place < partition(tp).end]

    def _take(self, records_max: int) -> dict[TopicPartition, list[StoredRecord]]:
        random, taken = self._broker.world.random, {}
        places = self._available()
        if len(places) > 1:
            random.shuffle(places)
        left = records_max
        for tp in places:
            partition = self._broker.partition(tp)
            begin = partition.index(self.positions[tp])
            share = random.randint(1, 3) if self._broker.world.dribble else left
            records = partition.records[begin : begin + min(left, share)]
            left -= len(records)
            self.positions[tp] = (
                partition.end if begin + len(records) == len(partition.records) else records[-1].offset + 1
            )
            if records:
                taken[tp] = records
            if not left:
                break
        return taken
