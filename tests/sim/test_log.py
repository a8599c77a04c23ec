"""The simulated log keeps the contract of every log."""

import asyncio
from typing import Any

import pytest

from mesh.adapters.ports import Log, Member
from tests.adapters.log_contract import LogContract
from tests.adapters.log_kit import OpenLog
from tests.sim.broker import Broker
from tests.sim.log import SimLog
from tests.sim.loop import SimLoop
from tests.sim.member import SimMember
from tests.sim.world import Host, World


class TestSimLog(LogContract):
    """The log contract with incremental and eager rebalances, with and without gaps of offsets."""

    @pytest.fixture(params=[(False, 0.0), (True, 0.3)], ids=["incremental", "eager, with gaps"])
    async def broker(self, request: pytest.FixtureRequest) -> Broker:
        loop: Any = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        world = World(1, slow=0.05, slow_ms=20.0, loop=loop)
        eager, gap = request.param
        return Broker(world, eager=eager, gap=gap)

    @pytest.fixture
    def open_log(self, broker: Broker) -> OpenLog:
        async def open_log() -> Log:
            host = Host(f"host {broker.world.loop.next_number()}")
            return SimLog(broker, host)

        return open_log

    async def abandon(self, member: Member) -> None:
        assert isinstance(member, SimMember)
        member.host.paused = True
        member.host.silent_since_s = member._world.loop.time()
        member._group.listen_for(member.host)
        assert member._follower is not None
        member._follower.cancel()
