"""mesh.control → the partitions of mesh.inbox that live in this process, so that what `decide` knows lies in the inbox.

Each partition is told everything as of one offset of mesh.control, in one record. The fold remembers that offset, so
a repetition changes nothing; what a crash lost is told again by the next owner, who begins where the fold stands.

The inbox may hold false statements: one of another writer, or one from before mesh.control was made anew. A statement
whose offset mesh.control has not reached, or that differs from what mesh.control says at its offset, is corrected.
"""

import asyncio

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Log
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.run.control import Control, relayed
from mesh.core.topology.model import Topology
from mesh.runtime.control_follower import ControlFollower
from mesh.runtime.loop import append_all

_log = diagnostics("relay")


class ControlRelay:
    """Told by the orchestrator which partitions are live here. `run` does the rest."""

    def __init__(self, log: Log, topology: Topology) -> None:
        self._log = log
        self._topology = topology
        self._known: dict[TopicPartition, Control] = {}
        """Partition → what it knows: what was folded there last, or what was sent to it since."""
        self._due = asyncio.Event()
        self._follower = ControlFollower(log, topology, self._told)

    @property
    def control(self) -> Control:
        """What mesh.control says, as far as this process has read it."""
        return self._follower.control

    def opened(self, partition: TopicPartition, known: Control) -> None:
        """The partition is live here; `known` is what its fold knows."""
        self._known[partition] = known
        self._due.set()

    def folded(self, partition: TopicPartition, known: Control) -> None:
        """The fold of a partition knows something else now, whoever said so."""
        if self._known.get(partition) != known:
            self.opened(partition, known)

    def closed(self, partition: TopicPartition) -> None:
        """Another process owns the partition now."""
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
        end = None
        if any(known.offset > self._follower.control.offset for known in self._known.values()):
            end = (await self._log.bounds(self._topology.control))[0].end
        control, records = self._follower.control, list[NewRecord]()
        for partition, known in self._known.items():
            if known.offset > control.offset and (end is None or known.offset < end):
                continue  # the follower has yet to read it
            replaces = None if known.offset < control.offset else known.offset
            if replaces is not None:
                if known == control:
                    continue
                _log.warning(
                    "a false statement about switches is corrected", partition=partition.partition, said=replaces
                )
            self._known[partition] = control
            records.append(relayed(control, self._topology, partition.partition, replaces=replaces))
        await append_all(self._log, records, self._topology)
