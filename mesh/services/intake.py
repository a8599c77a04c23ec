"""Intake: turns records of ingress topics into requests on mesh.inbox.

The id of a request follows from the record, so a record that is read twice makes the same request twice and one run.
A record that opens no run goes to mesh.dead unchanged; if its run id is known, a rejection on mesh.outcomes says why. A
type that only a newer topology declares is admitted under that topology, once another process has stored it.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from time import time_ns

from mesh.adapters.diagnostics import LimitedLog
from mesh.adapters.ports import SESSION_TIMEOUT_MS, Clock, Commit, Log
from mesh.adapters.tracing.intake_spans import IntakeSpans
from mesh.adapters.tracing.span_factory import SpanFactory
from mesh.core.ingress.admission import admit
from mesh.core.ingress.request_formats import Rejection
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import NewRecord, Record, TopicPartition, coordinates
from mesh.core.publishing.effect_records import dead_letter, inbox_record
from mesh.core.publishing.request_rejection import rejection_record
from mesh.core.run.dead_letter import dead_record
from mesh.core.topology.model import Topology
from mesh.runtime.loop import Holding, Loop
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
        self._spans = IntakeSpans(SpanFactory(log.url), topology.group("intake"))
        self._topics = [rule.name for rule in topology.topics.values() if rule.ingress]
        self.accepted = 0
        """Number of requests that were admitted since the start of this process."""
        self.rejected: Counter[str] = Counter()
        """Number of refused requests by reason code since the start of this process."""
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

    @property
    def holding(self) -> Holding | None:
        """The partitions of ingress topics that are read here; None: there is no ingress topic."""
        return self._loop.holding if self._topics else None

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
        """Return None: intake has no state (stage)."""
        return None

    async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
        """Return requests for the inbox, dead letters and rejections (stage)."""
        out: list[NewRecord] = []
        newer: list[Topology] | None = None
        traced = self._spans.is_active
        for record in records:
            began_ns = time_ns() if traced else 0
            request = admit(record, self._topology)
            if isinstance(request, Rejection) and request.code == "unknown_type":
                newer = await self._topologies.newer() if newer is None else newer
                request = next((one for one in _admit(record, newer)), request)
            if isinstance(request, Rejection):
                kind, place = (record.topic, request.code), coordinates(record)
                self._log.warning("a request was rejected", kind, code=request.code, at=place, reason=request.message)
            if traced:
                self._spans.processed(record, request, began_ns)
            out += self.answer(record, request)
        return out

    def answer(self, record: Record, request: Event | Rejection) -> Sequence[NewRecord]:
        """Return the records that follow from a record of an ingress topic and its admission."""
        if isinstance(request, Event):
            request.at_ms = record.timestamp
            self.accepted += 1
            return [inbox_record(request, self._topology)]
        self.rejected[request.code] += 1
        letter = dead_letter(dead_record(record, request.code, request.message), self._topology)
        if not request.run_id:
            return [letter]
        return [letter, rejection_record(request.run_id, request.code, request.message, self._topology)]

    def drop(self, partition: TopicPartition) -> None:
        """Forget nothing: intake has no state (stage)."""


def _admit(record: Record, topologies: Sequence[Topology]) -> Iterator[Event]:
    """Yield the request under each of these topologies that admits it, for the time of a rolling deploy."""
    for topology in topologies:
        request = admit(record, topology)
        if isinstance(request, Event):
            yield request
