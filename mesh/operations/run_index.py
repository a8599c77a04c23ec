"""The index of runs, built forward from the log: which runs there are, and where the records of each are.

The state of a run is folded from these records, as without an index. Before each look the index is built forward to the
end of the log. If another process builds it, or it may not be written, the rest is read for this look alone.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from hashlib import blake2b
from typing import Any, Final

from mesh.adapters.ports import Bounds, ReadLog
from mesh.adapters.sqlite.run_index import Place, ReadPlace, RunIndexFile, RunIndexUnusable, is_there
from mesh.core.history.run_entry import RunEntry
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.state.partition_state import RULES
from mesh.core.topology.model import Topology
from mesh.operations.run_places import NO_RUN, RunPlaces
from mesh.runtime.log_reader import read_batches

STEP_RECORDS: Final = 50_000
"""Records of one transaction: what an interruption loses."""
TAIL_MAX: Final = 300_000
"""Records read for one look where the index cannot be built; with more the log is read without the index."""
WAIT_S: Final = 2.0
"""Seconds for which a look waits for another process that builds."""
TRY_EVERY_S: Final = 0.02

Report = Callable[[int, int, int], None]
"""Called after each step with the records just read, all that were read, and all there are."""


class _OtherLog(Exception):
    """The index was built from another log."""


def identity_of(topology: Topology, partitions: Mapping[str, int]) -> dict[str, str]:
    """Return what an index must have been made for."""
    counts = ",".join(str(partitions.get(topic, 0)) for topic in (topology.inbox, topology.outcomes))
    return {"mesh": topology.name, "prefix": topology.prefix, "partitions": counts, "rules": str(RULES)}


class RunIndex:
    """An index of the runs of one mesh, which finds them for `Runs`. Call `catch_up` first."""

    def __init__(self, log: ReadLog, topology: Topology, file: RunIndexFile) -> None:
        self._log, self._topology = log, topology
        self.file = file
        self._starts: tuple[dict[int, int], dict[int, int]] = ({}, {})
        """First offsets of inbox and outcomes."""

    # ----------------------------------------------------------------------------------------------------- building

    async def catch_up(self, report: Report = lambda *_: None, *, records_max: int | None = None) -> bool:
        """Build the index to the end of the log. False: it is too far behind, and not to be used.

        `records_max`: most records to read for it. Raises RunIndexUnusable, LogUnavailable.
        """
        now_s = asyncio.get_running_loop().time
        deadline_s = now_s() + WAIT_S
        while True:
            with self.file.building() as mine:
                if mine or not self.file.writable or now_s() > deadline_s:
                    most = records_max if mine else min(TAIL_MAX, TAIL_MAX if records_max is None else records_max)
                    try:
                        return await self._advance(report, most, keep=mine)
                    except _OtherLog:
                        if not mine:
                            return False
                        self.file.dropped = "the log behind it is another one, or was restored"
                        self.file.drop()
                        self.file.open(identity_of(self._topology, await self._log.topics()))
                        return await self._advance(report, most, keep=True)
            await asyncio.sleep(TRY_EVERY_S)

    async def _advance(self, report: Report, records_max: int | None, *, keep: bool) -> bool:
        # The ends of the outcomes first: all that led to them is on the inbox by then.
        bounds = {topic: await self._log.bounds(topic) for topic in (self._topology.outcomes, self._topology.inbox)}
        known = self.file.read_places()
        inbox, outcomes = (
            {n: each.start for n, each in bounds[topic].items()}
            for topic in (self._topology.inbox, self._topology.outcomes)
        )
        self._starts = (inbox, outcomes)
        progress = _Progress(bounds, known)
        if records_max is not None and progress.total > records_max:
            return False
        await self._read_forward(progress, report, self.file.save if keep else self._add_tail)
        if keep and any(start for starts in self._starts for start in starts.values()):
            self.file.remove_gone(*self._starts)
        return True

    def _add_tail(
        self, entries: Mapping[str, RunEntry], common: Sequence[Place], _: Mapping[TopicPartition, ReadPlace]
    ) -> None:
        self.file.add_tail(entries, common)

    async def _read_forward(self, progress: "_Progress", report: Report, save: Callable[[Any, Any, Any], None]) -> None:
        """Read inbox and outcomes side by side, so that most runs are whole within a step."""
        inbox, outcomes = self._topology.inbox, self._topology.outcomes
        entries: dict[str, RunEntry] = {}
        common: list[Place] = []
        async with (
            aclosing(read_batches(self._log, inbox, progress.spans(inbox))) as first,
            aclosing(read_batches(self._log, outcomes, progress.spans(outcomes))) as second,
        ):
            sources = {inbox: first, outcomes: second}
            while sources:
                topic = min(sources, key=progress.reached_ms)
                batch = await anext(sources[topic], None)
                if batch is None:
                    del sources[topic]
                    continue
                for record in progress.new(batch):
                    if record.key == NO_RUN:
                        common += [(record.partition, record.offset)] if topic == inbox else ()
                    elif record.key is not None:
                        _take(entries, record, record.key, is_outcome=topic == outcomes)
                if progress.unsaved >= STEP_RECORDS:
                    save(entries, common, progress.places())
                    entries, common = {}, []
                    progress.saved(report)
        if progress.unsaved:
            save(entries, common, progress.places())
            progress.saved(report)

    # ------------------------------------------------------------------------------------------------------ finding

    async def named(self, name: str) -> list[str]:
        """See RunFinder."""
        return self.file.named(name)

    async def places(self, run_id: str) -> RunPlaces:
        """See RunFinder."""
        entry = self.file.entry(run_id)
        home = -1 if entry is None else entry.home
        if home < 0:
            home = partition_of(run_id.encode(), len(await self._log.bounds(self._topology.inbox)))
        if entry is None:
            return RunPlaces(home, [], {}, self.file.common(home))
        return self.places_of(entry)._replace(home=home, common=self.file.common(home), certain=self.has(entry))

    def places_of(self, entry: RunEntry) -> RunPlaces:
        """Return the places that an entry names."""
        return RunPlaces(entry.home, entry.inbox, {entry.outcomes_home: entry.outcomes}, [])

    def has(self, entry: RunEntry) -> bool:
        """Whether the log has a record of a run."""
        return is_there(entry, *self._starts)

    def refuse(self, run_id: str) -> Exception:
        """See RunFinder."""
        return RunIndexUnusable(f"it names places without a record of run {run_id}", damaged=True)

    @property
    def trimmed(self) -> bool:
        """Whether the inbox has lost records."""
        return any(self._starts[0].values())


class _Progress:
    """The read positions of inbox and outcomes behind the end of the index."""

    def __init__(self, bounds: Mapping[str, Mapping[int, Bounds]], known: Mapping[TopicPartition, ReadPlace]) -> None:
        """Begin with the last known record of each partition, which is compared. Raises _OtherLog."""
        self.unsaved = self.read = self.total = 0
        self._known = known
        self._last: dict[TopicPartition, Record] = {}
        self._spans: dict[str, dict[int, Bounds]] = {topic: {} for topic in bounds}
        self._reached = dict.fromkeys(bounds, 0)
        for topic, there in bounds.items():
            for number, each in there.items():
                read = known.get(TopicPartition(topic, number))
                start = each.start if read is None else max(each.start, read.next)
                if start > each.end:
                    raise _OtherLog
                self._spans[topic][number] = Bounds(start if start == each.start else start - 1, each.end)
                self.total += each.end - start

    def spans(self, topic: str) -> Mapping[int, Bounds]:
        """Return the offsets of a topic to read."""
        return self._spans[topic]

    def reached_ms(self, topic: str) -> int:
        """Return the time of the last record read."""
        return self._reached[topic]

    def new(self, batch: Sequence[Record]) -> Iterator[Record]:
        """Yield the records that the index does not know; compare those that it does. Raises _OtherLog."""
        for record in batch:
            place = TopicPartition(record.topic, record.partition)
            read = self._known.get(place)
            if read is not None and record.offset < read.next:
                if record.offset == read.next - 1 and _mark(record) != read.mark:
                    raise _OtherLog
                continue
            self.unsaved += 1
            self._last[place] = record
            yield record
        self._reached[batch[-1].topic] = batch[-1].timestamp

    def places(self) -> dict[TopicPartition, ReadPlace]:
        """Return the places that were reached since the last step."""
        return {place: ReadPlace(record.offset + 1, _mark(record)) for place, record in self._last.items()}

    def saved(self, report: Report) -> None:
        """Count a step as done."""
        self.read += self.unsaved
        report(self.unsaved, self.read, self.total)
        self.unsaved = 0
        self._last = {}


def _mark(record: Record) -> bytes:
    """Return a hash that tells this record from another one at its place."""
    stamp = b"%d %d %d " % (record.timestamp, len(record.key or b""), len(record.headers))
    return blake2b(stamp + (record.key or b"") + (record.value or b""), digest_size=8).digest()


def _take(entries: dict[str, RunEntry], record: Record, key: bytes, *, is_outcome: bool) -> None:
    run_id = key.decode("utf-8", "replace")
    entry = entries.get(run_id)
    if entry is None:
        entry = entries[run_id] = RunEntry(run_id)
    event = read_event(record)
    if not is_outcome:
        entry.take(record, event)
        return
    taken = not isinstance(event, Unreadable) and entry.take_outcome(record, event)
    if not taken and not entry.inbox and not entry.outcomes:
        del entries[run_id]
