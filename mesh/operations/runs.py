"""Read runs from the log: one in full, the latest, or live changes. There is no other store.

A run's records lie in one partition of mesh.inbox and its outcome on mesh.outcomes; `core.history.timeline` folds them.
"""

import re
import shlex
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.dead_letters.resend_plan import repeated_run
from mesh.core.errors import Ambiguous, Candidate, NotFound
from mesh.core.history.run_entry import Spans
from mesh.core.history.run_summary import OPEN, Summary, outcome_of, summary_of, summary_of_outcome
from mesh.core.history.task_attempts import Moment
from mesh.core.history.timeline import History
from mesh.core.protocol.event import ID_PATTERN, Event
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.publishing.request_rejection import LateRequest, late_request_in
from mesh.core.topology.model import Topology
from mesh.operations.removed_runs import RemovedRuns
from mesh.operations.run_places import (
    PREFIXED_MAX,
    PartitionFinder,
    RunFinder,
    RunPlaces,
    is_request,
    read_places,
)
from mesh.runtime.log_reader import end_offsets, read_records
from mesh.runtime.topology_store import TopologyReader

MADE_ID: Final = re.compile(r"[0-9a-f]{24}(:k[0-9a-f]{16})?")  # ids of runs whose request named none
POLL_WAIT_MS: Final = 500
POLL_RECORDS_MAX: Final = 2_000
WINDOW_RECORDS: Final = 5_000
"""Records of each partition in the first window for the latest runs; each further window is four times as large."""
CANDIDATES_MAX: Final = 5
REPORTED_MAX: Final = 10_000
"""Ended runs remembered by `watch`, so that a repeated request does not look like another run."""


class RunChange(NamedTuple):
    """New moments in the history of a run. `ended`: the run is over, and this is its last change."""

    history: History
    moments: tuple[Moment, ...]
    ended: bool = False


class _PendingEnd(NamedTuple):
    """The outcome of a run, and the offset up to which the inbox must be read before it is reported."""

    outcome: Event
    body: dict[str, Any]
    place: TopicPartition = TopicPartition("", 0)
    offset: int = -1


class Runs:
    """The runs of one mesh, read from its log."""

    def __init__(
        self,
        log: ReadLog,
        topology: Topology,
        *,
        finder: RunFinder | None = None,
        window_records: int = WINDOW_RECORDS,
        payloads: bool = False,
    ) -> None:
        """`finder`: None, where nothing is known. `payloads`: whether histories of single runs keep emitted ones."""
        self._payloads = payloads
        self.log, self.topology = log, topology
        self.finder = finder or PartitionFinder(log, topology)
        self._window_records, self._known = window_records, TopologyReader(log, topology)
        self._removed = RemovedRuns(log, topology, self._known, self._read, payloads=payloads)

    # ------------------------------------------------------------------------------------------------------ one run

    async def find(self, name: str) -> History:
        """Find the run called `name`: its id, a unique prefix of it, its request's id or its subject.

        Raises NotFound, and Ambiguous with the candidates if several runs match.
        """
        history = await self.history(name) if MADE_ID.fullmatch(name) else None
        if history is not None:
            return history
        named = await self.finder.named(name) or await self._older(name)
        if len(named) > 1:
            raise await self._ambiguous(name, named)
        history = None
        if named:
            history = await self.history(named[0])  # whole: the request that has this name may have come later
        elif ID_PATTERN.fullmatch(name):
            history = await self.history(name)  # its outcome may be all that is left
        if history is None:
            inbox = await self.log.bounds(self.topology.inbox)
            older = "; older records were removed" if any(each.start for each in inbox.values()) else ""
            raise NotFound(
                f"no run goes by {name[:128]!r}",
                where=f"{self.log.url} {self.topology.inbox}",
                expected="a run's id or its beginning, its request's id, or its subject",
                remedy=f"`mesh run list` shows the latest{older}",
            )
        return history

    async def _ambiguous(self, name: str, named: Sequence[str]) -> Ambiguous:
        """Return the error for a name of several runs. It shows some of them with their times."""
        found = []
        for run_id in named[-CANDIDATES_MAX:]:
            history = await self.history(run_id)
            if history is not None:
                one = summary_of(history)
                extensions = () if history.run is None else history.run.extensions
                found.append(Candidate(run_id, one.opened_ms, one.state, one.type, repeated_run(extensions)))
        remedy = "Give the id of one"
        if len(named) > len(found):
            remedy += f". `mesh run list --subject {shlex.quote(name[:128])}` lists all of a subject"
        count = f"{len(named)}{' or more' if len(named) == PREFIXED_MAX else ''}"
        found.sort(key=lambda one: one.opened_ms, reverse=True)
        return Ambiguous(name, found, count=count, remedy=remedy)

    async def history(self, run_id: str) -> History | None:
        """Return the history of a run; None if the log has no record of it."""
        places = await self.finder.places(run_id)
        history, key, seen = self._history(run_id, places.home), run_id.encode(), False
        async for record in self._at(self.topology.inbox, {places.home: places.inbox}):
            if record.key == key:
                history.take(record)
                seen = True
        seen = await self._add_outcome(history, places.outcomes) or seen
        if places.certain and not seen:
            raise self.finder.refuse(run_id)
        history = await self._whole(history)
        return history if seen or history.run else None

    async def _whole(self, history: History) -> History:
        """Rebuild the history from the checkpoint if the first records of the run were removed."""
        again = await self._removed.restore([history], await self.log.bounds(self.topology.inbox))
        return again.get(history.run_id, history)

    async def _add_outcome(self, history: History, places: Mapping[int, Spans]) -> bool:
        """Add the outcome; False if there is none."""
        seen = False
        async for record in self._at(self.topology.outcomes, places):
            if record.key != history.run_id.encode():
                continue
            found = outcome_of(record)
            if found is not None:
                history.take_outcome(*found)
                seen = True
            elif (late := late_request_in(record)) is not None:
                history.take_late_answer(late)
                seen = True
        return seen

    async def _older(self, name: str) -> list[str]:
        """Return the same for runs that are older than the records of the inbox."""
        runs = await self._removed.open_runs((), await self.log.bounds(self.topology.inbox))
        found: tuple[list[str], ...] = ([], [])
        for id, history in runs.items():
            roots = () if history.run is None else history.run.roots
            if id == name or history.subject == name or name in roots:
                found[0].append(id)
            elif id.startswith(name):
                found[1].append(id)
        return found[0] or found[1]

    async def open_summaries(self, places: Mapping[str, RunPlaces]) -> list[Summary]:
        """Fold runs without an outcome, by their ids, from these places in one pass. Those whose request opened none
        are left out."""
        histories = {id.encode(): self._history(id, each.home, payloads=False) for id, each in places.items()}
        spans: dict[int, Spans] = {}
        for each in places.values():
            spans.setdefault(each.home, []).extend(each.inbox)
        async for record in self._at(self.topology.inbox, spans):
            history = histories.get(record.key or b"")
            if history is not None:
                history.take(record)
        bounds = await self.log.bounds(self.topology.inbox) if histories else {}
        again = await self._removed.restore(histories.values(), bounds)
        whole = [again.get(history.run_id, history) for history in histories.values()]
        return [summary_of(history) for history in whole if history.late is None and history.opened_ms]

    async def older_open(self, known: Collection[str]) -> list[History]:
        """Return the open runs, except the known ones, that are older than the records of the inbox."""
        bounds = await self.log.bounds(self.topology.inbox)
        return list((await self._removed.open_runs(known, bounds)).values())

    # ------------------------------------------------------------------------------------------------- latest runs

    async def latest(
        self, *, limit: int, since_ms: int | None = None, where: Callable[[Summary], bool] = lambda _: True
    ) -> list[Summary]:
        """Return the latest runs for which `where` holds, newest first; with `since_ms` those requested at or after it.

        Without it the log is read backwards, as far as needed. A run that was opened before the part read is included
        only if the whole log was read. Then runs of checkpoints are added, which may be older.
        """
        rows: dict[str, Summary] = {}
        async with aclosing(self._windows(since_ms)) as windows:
            async for window in windows:
                await self._add(rows, window, since_ms)
                if since_ms is None and sum(map(where, rows.values())) >= limit:
                    break
            else:
                await self._add_older(rows)
        wanted = [row for row in rows.values() if where(row) and (since_ms is None or row.opened_ms >= since_ms)]
        return sorted(wanted, key=lambda row: -row.opened_ms)[:limit]

    async def _add_older(self, rows: dict[str, Summary]) -> None:
        """Add the runs that are open and older than the records of the inbox."""
        for history in await self.older_open(rows):
            await self._add_outcome(history, (await self.finder.places(history.run_id)).outcomes)
            rows[history.run_id] = summary_of(history)

    async def _add(self, rows: dict[str, Summary], window: Mapping[int, Bounds], since_ms: int | None) -> None:
        """Add the runs that were requested in a window of the inbox, and all whose outcome is not older than it."""
        inbox, outcomes = self.topology.inbox, self.topology.outcomes
        requests: dict[str, Record] = {}
        late: set[str] = set()
        first_ms = since_ms
        async for record in self._read(inbox, window):
            first_ms = record.timestamp if first_ms is None else min(first_ms, record.timestamp)
            if is_request(record):
                requests.setdefault(_run_id(record), record)
        if first_ms is None:
            return
        firsts = await self.log.offsets_at(outcomes, first_ms)
        ends = await self.log.bounds(outcomes)
        async for record in self._read(outcomes, {n: Bounds(firsts[n], b.end) for n, b in ends.items()}):
            found = outcome_of(record)
            if found is not None:
                rows[found[0].run_id] = summary_of_outcome(*found)
            elif (answer := late_request_in(record)) is not None:
                late.add(answer.run_id)
        bounds = await self.log.bounds(inbox)
        begun = {
            id: RunPlaces(r.partition, [(r.offset, bounds[r.partition].end - 1)], {}, [])
            for id, r in requests.items()
            if id not in rows
        }
        for summary in await self.open_summaries(begun):
            if summary.state != OPEN or summary.run_id not in late:  # else it had ended before this request of it
                rows[summary.run_id] = summary

    async def _windows(self, since_ms: int | None) -> AsyncGenerator[Mapping[int, Bounds], None]:
        """Yield parts of the inbox, from the end backwards."""
        bounds = await self.log.bounds(self.topology.inbox)
        if since_ms is not None:
            firsts = await self.log.offsets_at(self.topology.inbox, since_ms)
            yield {n: Bounds(firsts[n], b.end) for n, b in bounds.items()}
            return
        size, end = self._window_records, {n: b.end for n, b in bounds.items()}
        while any(end[n] > b.start for n, b in bounds.items()):
            yield {n: Bounds(max(b.start, end[n] - size), end[n]) for n, b in bounds.items()}
            end = {n: max(b.start, end[n] - size) for n, b in bounds.items()}
            size *= 4

    # ---------------------------------------------------------------------------------------------------- live runs

    async def ends(self) -> dict[TopicPartition, int]:
        """Return the ends of inbox and outcomes, for `watch` to begin with."""
        return await end_offsets(self.log, self.topology.inbox, self.topology.outcomes)

    async def watch(self, places: Mapping[TopicPartition, int]) -> AsyncGenerator[RunChange, None]:
        """Yield every change of every run from `places` on, without end; for runs opened before, only the end.

        The end comes after all other changes of the run.
        """
        reader = self.log.reader(places)
        histories: dict[str, History] = {}
        over: dict[str, _PendingEnd] = {}
        reported: dict[str, None] = {}
        try:
            while True:
                for record in await reader.poll(records_max=POLL_RECORDS_MAX, wait_ms=POLL_WAIT_MS):
                    if record.topic == self.topology.inbox:
                        await self._known.keep_up(record)
                        if _run_id(record) not in reported:
                            for change in self._take(record, histories, over):
                                yield change
                    elif (found := outcome_of(record)) is not None:
                        over[found[0].run_id] = _PendingEnd(*found)
                        histories.setdefault(found[0].run_id, self._history(found[0].run_id))
                    elif (late := late_request_in(record)) is not None and not (
                        late.run_id in reported or late.run_id in over
                    ):
                        history = histories.pop(late.run_id, None) or self._history(late.run_id)
                        history.take_late_answer(late)
                        reported[late.run_id] = None
                        yield RunChange(history, (), ended=True)
                await self._set_inbox_ends(over, histories)
                for run_id, end in list(over.items()):
                    history = histories[run_id]
                    if history.folded_ending or reader.position(end.place) >= end.offset:
                        del over[run_id], histories[run_id]
                        reported[run_id] = None
                        if len(reported) > REPORTED_MAX:
                            del reported[next(iter(reported))]
                        yield RunChange(history, tuple(history.take_outcome(end.outcome, end.body)), ended=True)
        finally:
            await reader.close()

    async def _set_inbox_ends(self, over: dict[str, "_PendingEnd"], histories: Mapping[str, History]) -> None:
        """Set the inbox offset to read first, for runs whose outcome was read before their last records."""
        pending = [run_id for run_id, end in over.items() if end.offset < 0 and not histories[run_id].folded_ending]
        if pending:
            bounds = await self.log.bounds(self.topology.inbox)
            for run_id in pending:
                home = partition_of(run_id.encode(), len(bounds))
                place = TopicPartition(self.topology.inbox, home)
                over[run_id] = over[run_id]._replace(place=place, offset=bounds[home].end)

    async def outcomes(
        self, places: Mapping[TopicPartition, int]
    ) -> AsyncGenerator[tuple[str, dict[str, Any] | LateRequest], None]:
        """Yield every outcome from `places` on, without end: run id, and body or answer to a late request."""
        reader = self.log.reader({place: at for place, at in places.items() if place.topic == self.topology.outcomes})
        try:
            while True:
                for record in await reader.poll(records_max=POLL_RECORDS_MAX, wait_ms=POLL_WAIT_MS):
                    if (found := outcome_of(record)) is not None:
                        yield found[0].run_id, found[1]
                    elif (late := late_request_in(record)) is not None:
                        yield late.run_id, late
        finally:
            await reader.close()

    async def past_outcomes(self, run_ids: Collection[str]) -> dict[str, dict[str, Any]]:
        """Return the outcome bodies of these runs, by run id, in one pass over the log."""
        keys = {run_id.encode() for run_id in run_ids}
        found = {}
        async for record in self._read(self.topology.outcomes, await self.log.bounds(self.topology.outcomes)):
            outcome = outcome_of(record) if record.key in keys else None
            if outcome is not None:
                found[outcome[0].run_id] = outcome[1]
        return found

    def _take(
        self, record: Record, histories: dict[str, History], over: Mapping[str, "_PendingEnd"]
    ) -> Iterable[RunChange]:
        run_id = _run_id(record)
        history = histories.get(run_id)
        if history is None:
            if not is_request(record):
                return
            history = histories[run_id] = self._history(run_id)
        moments = history.take(record)
        if history.request is None and run_id not in over:
            del histories[run_id]  # its request was refused
        elif moments:
            yield RunChange(history, tuple(moments))

    def _history(self, run_id: str, home: int = -1, *, payloads: bool | None = None) -> History:
        home = partition_of(run_id.encode(), self.topology.inbox_partitions) if home < 0 else home
        payloads = self._payloads if payloads is None else payloads
        return History(self.topology, run_id, partition=home, kept=self._known.kept, payloads=payloads)

    # ------------------------------------------------------------------------------------------------------ reading

    async def _read(self, topic: str, places: Mapping[int, Bounds]) -> AsyncIterator[Record]:
        """Yield the records between these bounds, in order for each partition."""
        await self._known.once()
        async with aclosing(read_records(self.log, topic, places)) as stored:
            async for record in stored:
                yield record

    async def _at(self, topic: str, spans: Mapping[int, Spans]) -> AsyncIterator[Record]:
        """Yield the records of these spans."""
        await self._known.once()
        async with aclosing(read_places(self.log, topic, spans)) as stored:
            async for record in stored:
                yield record


def _run_id(record: Record) -> str:
    return (record.key or b"").decode("utf-8", "replace")
