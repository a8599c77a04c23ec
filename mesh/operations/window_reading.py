"""Windows of numbers from the log: what a monitor would say, where none runs.

`catch_up` counts what the log holds since a time, `follow` goes on as records come. Nothing is written.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from mesh.adapters.ports import ReadLog
from mesh.core.metrics.measurements import kept_ms, source_topics
from mesh.core.metrics.windows import BASE_MS, PartitionWindows, Scoped, add_window, start_of
from mesh.core.protocol.record import TopicPartition
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import bounds_between, read_batches

GRACE_MS: Final = 500
"""How long after its end a window is complete: an append may be stamped a little before it can be read."""
POLL_WAIT_MS: Final = 250
POLL_RECORDS_MAX: Final = 2_000


class WindowReader:
    """Base windows of a mesh since a time, counted from its log."""

    def __init__(self, log: ReadLog, topology: Topology, since_ms: int) -> None:
        self._log, self._topology = log, topology
        self.since_ms = start_of(since_ms)
        """Start of the first window: the one that holds the time."""
        self._parts: dict[TopicPartition, PartitionWindows] = {}
        self._current = 0
        """Start of the window in which the log was caught up with."""

    async def catch_up(self) -> None:
        """Count what the log holds. Raises NotFound for a missing topic, LogUnavailable.

        Earlier records are read as well, as far back as something of a run is kept.
        """
        self._current = start_of(self._log.now_ms())
        for topic in source_topics(self._topology):
            bounds = await bounds_between(self._log, topic, max(1, self.since_ms - kept_ms(self._topology)))
            for number, each in bounds.items():
                place = TopicPartition(topic, number)
                self._parts[place] = PartitionWindows(
                    self._topology, place, since_ms=self.since_ms, next_offset=each.start
                )
            async with aclosing(read_batches(self._log, topic, bounds)) as batches:
                async for batch in batches:
                    for record in batch:
                        self._parts[TopicPartition(topic, record.partition)].take((record,))

    def windows(self) -> dict[int, Scoped]:
        """Return the windows counted so far, by start."""
        found: dict[int, Scoped] = {}
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
