"""Intake: what upstream systems put on ingress topics becomes requests on mesh.inbox.

The id of a request follows from what was sent, so a record read twice makes the same request twice and is one run.
What opens no run goes to mesh.dead untouched; whoever may wait for it under a known run id hears why on mesh.outcomes.
A type that only a newer topology declares, one that another process has kept, is admitted under that topology.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

from mesh.adapters.diagnostics import LimitedLog
from mesh.adapters.ports import SESSION_TIMEOUT_MS, Clock, Commit, Log
from mesh.core.ingress.admission import Rejection, admit
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import NewRecord, Record, TopicPartition, coordinates
from mesh.core.publishing.effect_records import dead_letter, inbox_record
from mesh.core.publishing.request_rejection import rejection_record
from mesh.core.state.partition_state import dead_record
from mesh.core.topology.model import Topology
from mesh.runtime.loop import Loop
from mesh.runtime.topology_store import TopologyStore


class Intake:
    """Run one with `await Intake(...).run(stop)`. Without ingress topics it waits for `stop`."""

    def __init__(
        self,
        log: Log,
        topology: Topology,
        clock: Clock,
        *,
        records_max: int = 500,
        session_timeout_ms: int = SESSION_TIMEOUT_MS,
    ) -> None:
        self._topology, self._log = topology, LimitedLog("intake")
        self._topologies = TopologyStore(log, topology, clock)
        self._topics = [rule.name for rule in topology.topics.values() if rule.ingress]
        self.rejected: Counter[str] = Counter()
        """Refused requests by reason code since the start of this process."""
        self._loop = Loop(
            log,
            self,
            topology,
            group=topology.group("intake"),
            topics=self._topics,
            records_max=records_max,
            session_timeout_ms=session_timeout_ms,
        )
        self.ready = self._loop.ready

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set."""
        if self._topics:
            try:
                await self._loop.run(stop)
            finally:
                self._log.flush()
        else:
            self.ready.set()
            await stop.wait()

    async def restore(self, partition: TopicPartition, commit: Commit | None) -> int | None:
        """Stage: there is no state."""
        return None

    async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
        """Stage: requests for the inbox, or dead letters."""
        out: list[NewRecord] = []
        newer: list[Topology] | None = None
        for record in records:
            request = admit(record, self._topology)
            if isinstance(request, Rejection) and request.code == "unknown_type":
                newer = await self._topologies.newer() if newer is None else newer
                request = next((one for one in _admitted(record, newer)), request)
            if isinstance(request, Rejection):
                kind, place = (record.topic, request.code), coordinates(record)
                self._log.warning("a request was rejected", kind, code=request.code, at=place, reason=request.message)
            out += self.answer(record, request)
        return out

    def answer(self, record: Record, request: Event | Rejection) -> Sequence[NewRecord]:
        """What follows from a record of an ingress topic that the gate has looked at."""
        if isinstance(request, Event):
            request.at_ms = record.timestamp
            return [inbox_record(request, self._topology)]
        self.rejected[request.code] += 1
        letter = dead_letter(dead_record(record, request.code, request.message), self._topology)
        if not request.run_id:
            return [letter]
        return [letter, rejection_record(request.run_id, request.code, request.message, self._topology)]

    def drop(self, partition: TopicPartition) -> None:
        """Stage: nothing to forget."""


def _admitted(record: Record, topologies: Sequence[Topology]) -> Iterator[Event]:
    """The request as each of these topologies admits it, if it does: processes of a newer version are at work, too."""
    for topology in topologies:
        request = admit(record, topology)
        if isinstance(request, Event):
            yield request
