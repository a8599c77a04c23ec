"""A relay from mesh.control to the partitions of mesh.inbox in this process: `decide` knows only what is in the inbox.

One record gives a partition the whole state as of one offset of mesh.control. The fold keeps that offset, so a
repetition changes nothing. After a crash the next owner relays again from the offset of the fold.

The inbox may hold false statements, from another writer or from before mesh.control was created again. A statement is
corrected if mesh.control has not reached its offset, or says something else at that offset.
"""

import asyncio

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Log
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.run.control import Control, relay_record
from mesh.core.topology.model import Topology
from mesh.runtime.control_follower import ControlFollower
from mesh.runtime.loop import append_all

_log = diagnostics("relay")


class ControlRelay:
    """The relay of one orchestrator, which reports its live partitions here. `run` does the rest."""

    def __init__(self, log: Log, topology: Topology) -> None:
        self._log = log
        self._topology = topology
        self._known: dict[TopicPartition, Control] = {}
        """Partition → the state it knows: the last one folded there, or sent to it since."""
        self._due = asyncio.Event()
        self._follower = ControlFollower(log, topology, self._wake)

    @property
    def control(self) -> Control:
        """The state of mesh.control, as far as this process has read it."""
        return self._follower.control

    def opened(self, partition: TopicPartition, known: Control) -> None:
        """Add a live partition. `known`: the state in its fold."""
        self._known[partition] = known
        self._due.set()

    def folded(self, partition: TopicPartition, known: Control) -> None:
        """Note the state in the fold of a partition after it has changed."""
        if self._known.get(partition) != known:
            self.opened(partition, known)

    def closed(self, partition: TopicPartition) -> None:
        """Remove a partition that another process owns now."""
        self._known.pop(partition, None)

    async def run(self) -> None:
        """Relay until cancelled. Raises LogUnavailable, NotFound without mesh.control."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follower.run(), name="follow control")
            await self._follower.caught_up.wait()
            while True:
                await self._due.wait()
                self._due.clear()
                await self._relay()

    def _wake(self, _: Control) -> None:
        self._due.set()

    async def _relay(self) -> None:
        end = None
        if any(known.offset > self._follower.control.offset for known in self._known.values()):
            end = (await self._log.bounds(self._topology.control))[0].end
        control, records = self._follower.control, list[NewRecord]()
        for partition, known in self._known.items():
            if known.offset > control.offset and (end is None or known.offset < end):
                continue  # the follower has not read it yet
            replaces = None if known.offset < control.offset else known.offset
            if replaces is not None:
                if known == control:
                    continue
                _log.warning(
                    "a false statement about switches is corrected", partition=partition.partition, said=replaces
                )
            self._known[partition] = control
            records.append(relay_record(control, self._topology, partition.partition, replaces=replaces))
        await append_all(self._log, records, self._topology)
