"""Runs found through an index: one by its names, or the first of those that a query wants.

The index says where the records of a run are. Its state is folded from these records, as without an index. Before each
look the index is built forward to the end of the log. If another process builds it, or it may not be written, the
rest is read for this look alone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

from mesh.adapters.ports import Bounds, ReadLog
from mesh.adapters.sqlite.run_index import ReadPlace, RunIndexFile, RunIndexUnusable, is_there
from mesh.core.history.run_entry import GAP_MAX, RunEntry, Spans
from mesh.core.history.run_query import RunQuery, run_attributes
from mesh.core.history.run_summary import OPEN, Summary, outcome_of, summary_of
from mesh.core.history.timeline import History
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.publishing.request_rejection import late_request_in
from mesh.core.run.control import ALL
from mesh.core.selection.where import Where, payloads_of
from mesh.core.state.partition_state import RULES
from mesh.core.topology.model import Topology
from mesh.operations.runs import Runs
from mesh.runtime.log_reader import read_batches

STEP_RECORDS: Final = 50_000
"""Records of one transaction: what an interruption loses."""
TAIL_MAX: Final = 300_000
"""Records read for one look where the index cannot be built; with more the log is read without the index."""
WAIT_S: Final = 2.0
"""Seconds for which a look waits for another process that builds."""
TRY_EVERY_S: Final = 0.02
PAGE: Final = 200
OPEN_MAX: Final = 20_000
"""Open runs that are folded for one look."""
_NO_RUN: Final = ALL.encode()

Report = Callable[[int, int, int], None]
"""Called after each step with the records just read, all that were read, and all there are."""


class _OtherLog(Exception):
    """The index was built from another log."""


def identity_of(topology: Topology, partitions: Mapping[str, int]) -> dict[str, str]:
    """Return what an index must have been made for."""
    counts = ",".join(str(partitions.get(topic, 0)) for topic in (topology.inbox, topology.outcomes))
    return {"mesh": topology.name, "prefix": topology.prefix, "partitions": counts, "rules": str(RULES)}


class IndexedRuns(Runs):
    """The runs of one mesh, found through an index. Call `catch_up` first."""

    def __init__(self, log: ReadLog, topology: Topology, file: RunIndexFile, *, payloads: bool = False) -> None:
        super().__init__(log, topology, payloads=payloads)
        self._file = file
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
            with self._file.building() as mine:
                if mine or not self._file.writable or now_s() > deadline_s:
                    most = records_max if mine else min(TAIL_MAX, TAIL_MAX if records_max is None else records_max)
                    try:
                        return await self._advance(report, most, keep=mine)
                    except _OtherLog:
                        if not mine:
                            return False
                        self._file.dropped = "the log behind it is another one, or was restored"
                        self._file.drop()
                        self._file.open(identity_of(self.topology, await self.log.topics()))
                        return await self._advance(report, most, keep=True)
            await asyncio.sleep(TRY_EVERY_S)

    async def _advance(self, report: Report, records_max: int | None, *, keep: bool) -> bool:
        # The ends of the outcomes first: all that led to them is on the inbox by then.
        bounds = {topic: await self.log.bounds(topic) for topic in (self.topology.outcomes, self.topology.inbox)}
        known = self._file.read_places()
        inbox, outcomes = (
            {n: each.start for n, each in bounds[topic].items()}
            for topic in (self.topology.inbox, self.topology.outcomes)
        )
        self._starts = (inbox, outcomes)
        progress = _Progress(bounds, known)
        if records_max is not None and progress.total > records_max:
            return False
        await self._read_forward(progress, report, self._file.save if keep else self._add_tail)
        if keep and any(start for starts in self._starts for start in starts.values()):
            self._file.remove_gone(*self._starts)
        return True

    def _add_tail(self, entries: Mapping[str, RunEntry], _: Mapping[TopicPartition, ReadPlace]) -> None:
        self._file.add_tail(entries)

    async def _read_forward(self, progress: "_Progress", report: Report, save: Callable[[Any, Any], None]) -> None:
        """Read inbox and outcomes side by side, so that most runs are whole within a step."""
        inbox, outcomes = self.topology.inbox, self.topology.outcomes
        entries: dict[str, RunEntry] = {}
        async with (
            aclosing(read_batches(self.log, inbox, progress.spans(inbox))) as first,
            aclosing(read_batches(self.log, outcomes, progress.spans(outcomes))) as second,
        ):
            sources = {inbox: first, outcomes: second}
            while sources:
                topic = min(sources, key=progress.reached_ms)
                batch = await anext(sources[topic], None)
                if batch is None:
                    del sources[topic]
                    continue
                for record in progress.new(batch):
                    _take(entries, record, is_outcome=topic == outcomes)
                if progress.unsaved >= STEP_RECORDS:
                    save(entries, progress.places())
                    entries = {}
                    progress.saved(report)
        if progress.unsaved:
            save(entries, progress.places())
            progress.saved(report)

    # ------------------------------------------------------------------------------------------------------ one run

    async def history(self, run_id: str) -> History | None:
        """Return the history of a run, read from its places alone; None if the log has no record of it."""
        entry = self._file.entry(run_id)
        if entry is None:
            _, home = await self._home(self.topology.inbox, run_id.encode())
            history = await self._whole(self._begun(run_id, home))
            return history if history.run else None
        inbox, outcomes = self.topology.inbox, self.topology.outcomes
        home = entry.home if entry.home >= 0 else (await self._home(inbox, run_id.encode()))[1]
        history = self._begun(run_id, home)
        key, seen = run_id.encode(), False
        async for record in self._at(inbox, {home: entry.inbox}):
            if record.key == key:
                history.take(record)
                seen = True
        async for record in self._at(outcomes, {entry.outcomes_home: entry.outcomes}):
            if record.key == key:
                _take_outcome(history, record)
                seen = True
        if not seen and is_there(entry, *self._starts):
            raise RunIndexUnusable(f"it names places without a record of run {run_id}", damaged=True)
        history = await self._whole(history)
        return history if seen or history.run else None

    def _begun(self, run_id: str, home: int) -> History:
        return History(self.topology, run_id, partition=home, kept=self._known.kept, payloads=self._payloads)

    async def _find_named(self, name: bytes) -> list[str]:
        text = name.decode("utf-8", "replace")
        return self._file.named(text) or await self._older(text)

    async def _at(self, topic: str, spans: Mapping[int, Spans]) -> AsyncIterator[Record]:
        """Yield the records of these spans that the log still has, in order for each partition."""
        bounds = await self.log.bounds(topic)
        ordered = {number: _wide(found) for number, found in spans.items() if found}
        for turn in range(max(map(len, ordered.values()), default=0)):
            places = {
                number: Bounds(max(found[turn][0], bounds[number].start), min(found[turn][1] + 1, bounds[number].end))
                for number, found in ordered.items()
                if turn < len(found)
            }
            async for record in self._read(topic, places):
                yield record

    # --------------------------------------------------------------------------------------------------- many runs

    async def select(self, query: RunQuery, *, limit: int, where: Where | None = None) -> list[Summary]:
        """Return the first runs that a query wants, in its order. `where`: on the run and its request's payload."""
        now_ms = self.log.now_ms()
        wanted, order = query.test(now_ms), query.order(now_ms)
        found: list[Summary] = []
        for page in _pages(self._there(self._file.ended(query))) if query.endings else ():
            runs = [(entry, entry.ended) for entry in page if entry.ended is not None and wanted(entry.ended)]
            found += await self._fitting(runs, where)
            if len(found) >= limit:
                break
        if query.takes_open:
            found += await self._open_runs(query, found[:limit], limit, where)
        return sorted(found, key=order)[:limit]

    async def _open_runs(self, query: RunQuery, ended: list[Summary], limit: int, where: Where | None) -> list[Summary]:
        """Fold the open runs that may be among the first."""
        wanted = query.test(self.log.now_ms())
        found: list[Summary] = []
        seen: set[str] = set()
        newest = query.sort == "started"
        for page in _pages(islice(self._there(self._file.open_runs(query)), OPEN_MAX)):
            if newest and len(ended) == limit:
                page = [entry for entry in page if entry.opened_ms >= ended[-1].opened_ms]
                if not page:
                    break
            folded = {run.run_id: run for run in await self._folded(page)}
            seen |= {entry.run_id for entry in page}
            runs = [(entry, folded[entry.run_id]) for entry in page if entry.run_id in folded]
            found += await self._fitting([(entry, run) for entry, run in runs if wanted(run)], where)
            if newest and len(found) >= limit:
                break
        if len(found) + len(ended) < limit and any(self._starts[0].values()):
            older = await self._removed.open_runs(seen, await self.log.bounds(self.topology.inbox))
            runs_older = [summary_of(history) for id, history in older.items() if self._file.entry(id) is None]
            found += [run for run in runs_older if run.state == OPEN and where is None and wanted(run)]
        return found

    async def _folded(self, entries: Iterable[RunEntry]) -> list[Summary]:
        """Fold runs without an outcome; those whose request opened none are left out."""
        histories = {entry.run_id.encode(): self._begun(entry.run_id, entry.home) for entry in entries}
        spans: dict[int, Spans] = {}
        for entry in entries:
            spans.setdefault(entry.home, []).extend(entry.inbox)
        async for record in self._at(self.topology.inbox, spans):
            history = histories.get(record.key or b"")
            if history is not None:
                history.take(record)
        bounds = await self.log.bounds(self.topology.inbox)
        again = await self._removed.restore(histories.values(), bounds)
        whole = [again.get(history.run_id, history) for history in histories.values()]
        return [summary_of(history) for history in whole if history.late is None and history.opened_ms]

    async def _fitting(self, runs: list[tuple[RunEntry, Summary]], where: Where | None) -> list[Summary]:
        """Return the runs for which the condition holds; reads the requests if it names their payload."""
        if where is None:
            return [run for _, run in runs]
        attributes = [run_attributes(run) for _, run in runs]
        requests: dict[str, Mapping[str, Any]] = {}
        if attributes and not where.reads_only(attributes[0]):
            requests = await self._requests([entry for entry, _ in runs])
        return [
            run
            for (_, run), known in zip(runs, attributes, strict=True)
            if where.holds(requests.get(run.run_id, {run.type: None}), known)
        ]

    async def _requests(self, entries: list[RunEntry]) -> dict[str, Mapping[str, Any]]:
        """Return the payload of the first request of each run, by its type."""
        spans: dict[int, Spans] = {}
        for entry in entries:
            spans.setdefault(entry.home, []).extend((first, first) for first, _ in entry.inbox[:1])
        spans.pop(-1, None)
        keys = {entry.run_id.encode() for entry in entries}
        found: dict[str, Mapping[str, Any]] = {}
        async for record in self._at(self.topology.inbox, spans):
            if record.key in keys and (id := record.key.decode()) not in found:
                event = read_event(record)
                if not isinstance(event, Unreadable):
                    found[id] = payloads_of(event.type, event.content_type, event.data)
        return found

    def _there(self, entries: Iterable[RunEntry]) -> Iterator[RunEntry]:
        """Leave out the runs of which the log has no record any more."""
        return (entry for entry in entries if is_there(entry, *self._starts))


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


def _take(entries: dict[str, RunEntry], record: Record, *, is_outcome: bool) -> None:
    if record.key is None or record.key == _NO_RUN:
        return
    run_id = record.key.decode("utf-8", "replace")
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


def _take_outcome(history: History, record: Record) -> None:
    found = outcome_of(record)
    if found is not None:
        history.take_outcome(*found)
    elif (late := late_request_in(record)) is not None:
        history.take_late_answer(late)


def _wide(spans: Spans) -> Spans:
    """Join spans that lie close together; each is then read in one go."""
    joined: Spans = []
    for first, last in sorted(spans):
        if joined and first - joined[-1][1] <= GAP_MAX:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined


def _pages(entries: Iterable[RunEntry]) -> Iterator[list[RunEntry]]:
    found = iter(entries)
    while page := list(islice(found, PAGE)):
        yield page
