"""mesh.control → the partitions of mesh.inbox that live in this process, so that what `decide` knows lies in the inbox.

Each partition is told everything as of one offset of mesh.control, in one record. The fold remembers that offset, so
a repetition changes nothing; what a crash lost is told again by the next owner, who begins where the fold stands.
"""

import asyncio

from mesh.core.control import Control, relayed
from mesh.core.record import TopicPartition
from mesh.core.topology import Topology
from mesh.wire.follow import ControlFollower
from mesh.wire.loop import append_all
from mesh.wire.ports import Log


class Relay:
    """Told by the orchestrator which partitions are live here. `run` does the rest."""

    def __init__(self, log: Log, topology: Topology) -> None:
        self._log = log
        self._topology = topology
        self._known: dict[TopicPartition, int] = {}
        """Partition → the offset of mesh.control up to which it has been told."""
        self._due = asyncio.Event()
        self._follower = ControlFollower(log, topology, self._told)

    def opened(self, partition: TopicPartition, known: Control) -> None:
        """The partition is live here; `known` is what its fold knows."""
        self._known[partition] = known.offset
        self._due.set()

    def closed(self, partition: TopicPartition) -> None:
        """The partition is somebody else's now."""
        self._known.pop(partition, None)

    async def run(self) -> None:
        """Until it is cancelled. Raises LogUnavailable, NotFound without mesh.control."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follower.run(), name="follow control")
            await self._follower.caught_up.wait()
            while True:
                await self._due.wait()
                self._due.clear()
                await self._tell()

    def _told(self, control: Control) -> None:
        self._due.set()

    async def _tell(self) -> None:
        control = self._follower.control
        behind = [tp for tp, known in self._known.items() if known < control.offset]
        for tp in behind:
            self._known[tp] = control.offset
        await append_all(self._log, [relayed(control, self._topology, tp.partition) for tp in behind], self._topology)
