"""Read any topics of the log: a part of them, their last records, or what comes. There is no group and no commit.

Records of a partition come in its order. Between partitions they come in the order of log time, as far as
`BUFFERED_MAX` records allow.
"""

import heapq
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final, NamedTuple

from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.errors import InvalidInput
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import Event
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.selection.record_filter import RecordFilter
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import bounds_between, read_batches

BUFFERED_MAX: Final = 10_000
"""Records that wait for earlier ones of other partitions."""
WINDOW_RECORDS: Final = 1_000
"""Least records of each partition in the first window for the last records; each further one is four times as large."""
POLL_RECORDS_MAX: Final = 500
POLL_WAIT_MS: Final = 500

Spans = Mapping[str, Mapping[int, Bounds]]
"""Topic → partition → offsets to read."""
Found = tuple[Record, Event | Unreadable]
Read = Callable[[Record], Event | Unreadable]
"""How the event in a record is read: `read_event` for topics of the mesh alone, `event_in` for any topic."""


class TopicRange(NamedTuple):
    """A part of topics: from a time until a time, and offsets by partition. None and empty: no bound."""

    since_ms: int | None = None
    until_ms: int | None = None
    starts: Mapping[int, int] = {}
    ends: Mapping[int, int] = {}

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that offsets name; only these are read. None named: all."""
        return frozenset(self.starts) | frozenset(self.ends)


async def spans_of(log: ReadLog, topology: Topology, topics: Sequence[str], part: TopicRange, run: str | None) -> Spans:
    """Return the offsets to read. For a run, only its home partition is read, where its id is the key of all records.

    Raises NotFound for an unknown topic, InvalidInput for a partition that a topic does not have.
    """
    spans = {}
    for topic in topics:
        bounds = await log.bounds(topic)
        _expect_partitions(topic, part.partitions, bounds)
        timed = await bounds_between(log, topic, part.since_ms, part.until_ms)
        chosen = part.partitions or frozenset(bounds)
        if run is not None and topic in (topology.inbox, topology.outcomes):
            chosen &= {partition_of(run.encode(), len(bounds))}
        spans[topic] = {
            number: Bounds(max(each.start, part.starts.get(number, 0)), min(each.end, part.ends.get(number, each.end)))
            for number, each in sorted(timed.items())
            if number in chosen
        }
    return spans


def _expect_partitions(topic: str, asked: frozenset[int], there: Mapping[int, Bounds]) -> None:
    unknown = sorted(asked - there.keys())
    if unknown:
        raise InvalidInput(
            f"topic {topic!r} has no partition {unknown[0]}",
            code="bad_value",
            where="--from, --to",
            expected=f"a partition from 0 to {len(there) - 1}",
            got=str(unknown[0]),
        )


async def read_topics(
    log: ReadLog, spans: Spans, wanted: RecordFilter, read: Read = read_event
) -> AsyncGenerator[Found]:
    """Yield the wanted records of these spans. Close the generator."""
    order = _Order(spans)
    async with AsyncExitStack() as stack:
        sources = [
            (topic, await stack.enter_async_context(aclosing(read_batches(log, topic, places))))
            for topic, places in spans.items()
        ]
        while sources:
            for topic, batches in list(sources):
                batch = await anext(batches, None)
                if batch is None:
                    sources.remove((topic, batches))
                    order.finish(topic)
                    continue
                for record in batch:
                    event = read(record)
                    order.take(record, event, wanted=wanted.fits(record, event))
            for found in order.ready():
                yield found


class _Order:
    """Puts the records of several partitions in the order of their times."""

    def __init__(self, spans: Spans) -> None:
        self._ends = {
            TopicPartition(topic, number): each.end
            for topic, places in spans.items()
            for number, each in places.items()
            if each.start < each.end
        }
        self._reached = dict.fromkeys(self._ends, -1)
        """Time of the last record read, for each partition that has more."""
        self._times: dict[TopicPartition, int] = {}
        self._waiting: list[tuple[int, str, int, int, Record, Event | Unreadable]] = []

    def take(self, record: Record, event: Event | Unreadable, *, wanted: bool) -> None:
        """Take the next record of a partition. Its time never falls, though a producer's clock may."""
        place = TopicPartition(record.topic, record.partition)
        self._times[place] = at_ms = max(record.timestamp, self._times.get(place, 0))
        if record.offset + 1 >= self._ends.get(place, 0):
            self._reached.pop(place, None)
        elif place in self._reached:
            self._reached[place] = at_ms
        if wanted:
            heapq.heappush(self._waiting, (at_ms, record.topic, record.partition, record.offset, record, event))

    def finish(self, topic: str) -> None:
        """Wait no longer for records of a topic."""
        for place in [place for place in self._reached if place.topic == topic]:
            del self._reached[place]

    def ready(self) -> Sequence[Found]:
        """Return the records that no unread one can precede."""
        until_ms = min(self._reached.values(), default=None)
        found: list[Found] = []
        while self._waiting and (
            until_ms is None or self._waiting[0][0] <= until_ms or len(self._waiting) > BUFFERED_MAX
        ):
            *_, record, event = heapq.heappop(self._waiting)
            found.append((record, event))
        return found


async def last_records(
    log: ReadLog, spans: Spans, wanted: RecordFilter, count: int, read: Read = read_event
) -> list[Found]:
    """Return the last wanted records of these spans, the oldest first. Reads backwards, as far as needed."""
    size = max(WINDOW_RECORDS, count)
    while True:
        part = {
            topic: {n: Bounds(max(each.start, each.end - size), each.end) for n, each in places.items()}
            for topic, places in spans.items()
        }
        latest: list[tuple[int, str, int, int, Record, Event | Unreadable]] = []
        begin_ms: dict[TopicPartition, int] = {}
        async with aclosing(read_topics(log, part, RecordFilter(), read)) as records:
            async for record, event in records:
                begin_ms.setdefault(TopicPartition(record.topic, record.partition), record.timestamp)
                if wanted.fits(record, event):
                    row = (record.timestamp, record.topic, record.partition, record.offset, record, event)
                    (heapq.heappush if len(latest) < count else heapq.heappushpop)(latest, row)
        cut = [
            begin_ms.get(TopicPartition(topic, number), 0)
            for topic, places in part.items()
            for number, each in places.items()
            if each.start > spans[topic][number].start
        ]
        if not cut or (len(latest) == count and latest[0][0] >= max(cut)):
            return [(record, event) for *_, record, event in sorted(latest, key=lambda row: row[:4])]
        size *= 4


async def follow(
    log: ReadLog, positions: Mapping[TopicPartition, int], wanted: RecordFilter, read: Read = read_event
) -> AsyncGenerator[Found]:
    """Yield the wanted records from these offsets on as they come, without end. Close the generator."""
    reader = log.reader(positions)
    try:
        while True:
            for record in await reader.poll(records_max=POLL_RECORDS_MAX, wait_ms=POLL_WAIT_MS):
                event = read(record)
                if wanted.fits(record, event):
                    yield record, event
    finally:
        await reader.close()
