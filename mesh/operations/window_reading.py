"""Windows of numbers: those that a monitor has published, and the rest counted from the log.

`catch_up` takes what the log holds since a time, `follow` goes on as records come. Nothing is written.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.metrics.aggregate import Aggregate
from mesh.core.metrics.measurements import kept_ms, source_topics
from mesh.core.metrics.window_records import read_window
from mesh.core.metrics.windows import BASE_MS, GRACE_MS, PartitionWindows, Scoped, add_window, start_of
from mesh.core.protocol.record import TopicPartition
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import bounds_between, read_batches, read_records

POLL_WAIT_MS: Final = 250
POLL_RECORDS_MAX: Final = 2_000


class WindowReader:
    """Base windows of a mesh since a time, counted from its log."""

    def __init__(self, log: ReadLog, topology: Topology, since_ms: int, *, whole_runs: bool = True) -> None:
        """`whole_runs`: read what runs did before that time, too. Without it overhead, context drift and cascades of
        runs that began earlier are not known."""
        self._log, self._topology = log, topology
        self._kept_ms = kept_ms(topology) if whole_runs else 0
        self.since_ms = start_of(since_ms)
        """Start of the first window: the one that holds the time."""
        self._parts: dict[TopicPartition, PartitionWindows] = {}
        self._published: dict[int, Scoped] = {}
        """Windows of a monitor that need not be counted."""
        self._current = 0
        """Start of the window in which the log was caught up with."""
        self.published_ms = 0
        """When a monitor last published, as the start of a window; 0: never since the time."""
        self._ends: Mapping[int, int] = {}
        """Ends of mesh.windows."""

    async def catch_up(self) -> None:
        """Take what a monitor has published, and count the rest. Raises NotFound for a missing topic, LogUnavailable.

        The last published window of each partition may have grown, so counting begins with it. Earlier records are read
        as well, as far back as something of a run is kept.
        """
        self._current = start_of(self._log.now_ms())
        self._ends = await self._published_ends()
        latest = await self._read_published()
        self.published_ms = max(latest.values(), default=0)
        for topic in source_topics(self._topology):
            spans: dict[int, Bounds] = {}
            for number in await self._log.bounds(topic):
                place = TopicPartition(topic, number)
                since_ms = max(self.since_ms, latest.get(place, 0))
                kept = await bounds_between(self._log, topic, max(1, since_ms - self._kept_ms))
                spans[number] = kept[number]
                self._parts[place] = PartitionWindows(
                    self._topology, place, since_ms=since_ms, next_offset=kept[number].start
                )
            await self._count(topic, spans)

    async def _count(self, topic: str, spans: Mapping[int, Bounds]) -> None:
        async with aclosing(read_batches(self._log, topic, spans)) as batches:
            async for batch in batches:
                for record in batch:
                    self._parts[TopicPartition(topic, record.partition)].take((record,))

    async def advance(self, since_ms: int) -> None:
        """Count what came since `catch_up`, and forget windows that ended before a time. Raises as `catch_up` does."""
        for topic in source_topics(self._topology):
            bounds = await self._log.bounds(topic)
            places = {number: self._parts[TopicPartition(topic, number)].next_offset for number in bounds}
            await self._count(topic, {n: Bounds(min(places[n], b.end), b.end) for n, b in bounds.items()})
        if (ends := await self._published_ends()) != self._ends:
            self._ends, self.published_ms = ends, start_of(self._log.now_ms())
        self.since_ms = max(self.since_ms, start_of(since_ms))
        for windows in (self._published, *(part.windows for part in self._parts.values())):
            for start in [start for start in windows if start < self.since_ms]:
                del windows[start]

    async def _published_ends(self) -> Mapping[int, int]:
        topic = self._topology.windows
        there = topic in await self._log.topics()
        return {n: each.end for n, each in (await self._log.bounds(topic)).items()} if there else {}

    async def _read_published(self) -> dict[TopicPartition, int]:
        """Read the windows of a monitor. Returns the start of the last one of each source partition."""
        topic, latest = self._topology.windows, dict[TopicPartition, int]()
        if topic not in await self._log.topics():
            return latest
        bounds = await bounds_between(self._log, topic, max(1, self.since_ms))
        found: dict[tuple[TopicPartition, int, str], Aggregate] = {}
        async with aclosing(read_records(self._log, topic, bounds)) as records:
            async for record in records:
                part = read_window(record)
                if part is not None and part.start_ms >= self.since_ms:
                    found[part.place, part.start_ms, part.scope] = part.aggregate
                    latest[part.place] = max(part.start_ms, latest.get(part.place, 0))
        for (place, start_ms, scope), aggregate in found.items():
            if start_ms < latest[place]:
                add_window(self._published, start_ms, {scope: aggregate})
        return latest

    def windows(self) -> dict[int, Scoped]:
        """Return the windows counted so far, by start."""
        found: dict[int, Scoped] = {}
        for start, scopes in self._published.items():
            add_window(found, start, scopes)
        for part in self._parts.values():
            for start, scopes in part.windows.items():
                add_window(found, start, scopes)
        return dict(sorted(found.items()))

    async def follow(self) -> AsyncGenerator[tuple[int, Scoped]]:
        """Yield each window that ends after `catch_up`, with its start; empty ones too. Without end: close it."""
        current = self._current
        reader = self._log.reader({place: part.next_offset for place, part in self._parts.items()})
        try:
            while True:
                records = await reader.poll(records_max=POLL_RECORDS_MAX, wait_ms=POLL_WAIT_MS)
                for record in records:
                    self._parts[TopicPartition(record.topic, record.partition)].take((record,))
                while not records and self._log.now_ms() >= current + BASE_MS + GRACE_MS:
                    yield current, self._merged(current)
                    current += BASE_MS
        finally:
            await reader.close()

    def _merged(self, start: int) -> Scoped:
        """Merge the parts of a window, and forget them and what is before."""
        found: dict[int, Scoped] = {start: {}}
        for part in self._parts.values():
            add_window(found, start, part.windows.get(start, {}))
            part.changed.clear()
            part.forget()
        return found[start]
