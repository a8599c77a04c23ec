"""The first runs that a query wants, found through the index of runs. What is shown of an open run is folded."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import aclosing
from itertools import islice
from typing import Any, Final

from mesh.core.history.run_entry import RunEntry, Spans
from mesh.core.history.run_query import RunQuery, run_attributes
from mesh.core.history.run_summary import OPEN, Summary, summary_of
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.selection.where import Where, payloads_of
from mesh.operations.run_index import RunIndex
from mesh.operations.run_places import read_places
from mesh.operations.runs import Runs

PAGE: Final = 200
PAGE_MAX: Final = 5_000
"""Runs read at a time for a condition: the longer the search, the more, so that fewer spans of the log are read."""
OPEN_MAX: Final = 20_000
"""Open runs that are folded for one look, unless more are wanted."""


async def select_runs(
    runs: Runs, index: RunIndex, query: RunQuery, *, limit: int, where: Where | None = None
) -> list[Summary]:
    """Return the first runs that a query wants, in its order. `where`: on the run and its request's payload."""
    return await _Selection(runs, index, query, limit, where).found()


class _Selection:
    """One look through the index."""

    def __init__(self, runs: Runs, index: RunIndex, query: RunQuery, limit: int, where: Where | None) -> None:
        self._runs, self._index, self._query = runs, index, query
        self._limit, self._where = limit, where
        now_ms = runs.log.now_ms()
        self._wanted, self._order = query.test(now_ms), query.order(now_ms)

    async def found(self) -> list[Summary]:
        query, found = self._query, list[Summary]()
        for page in self._pages(self._index.file.ended(query)) if query.endings else ():
            runs = [(entry, entry.ended) for entry in page if entry.ended is not None and self._wanted(entry.ended)]
            found += await self._fitting(runs)
            if len(found) >= self._limit:
                break
        if query.takes_open:
            found += await self._open(found[: self._limit])
        return sorted(found, key=self._order)[: self._limit]

    async def _open(self, ended: list[Summary]) -> list[Summary]:
        """Fold the open runs that may be among the first."""
        found: list[Summary] = []
        seen: set[str] = set()
        newest, limit = self._query.sort == "started", self._limit
        for page in self._pages(islice(self._index.file.open_runs(self._query), max(OPEN_MAX, limit))):
            if newest and len(ended) == limit:
                page = [entry for entry in page if entry.opened_ms >= ended[-1].opened_ms]
                if not page:
                    break
            places = {entry.run_id: self._index.places_of(entry) for entry in page}
            folded = {run.run_id: run for run in await self._runs.open_summaries(places)}
            seen |= places.keys()
            runs = [(entry, folded[entry.run_id]) for entry in page if entry.run_id in folded]
            found += await self._fitting([(entry, run) for entry, run in runs if self._wanted(run)])
            if newest and len(found) >= limit:
                break
        if len(found) + len(ended) < limit and self._index.trimmed:
            older = [one for one in await self._runs.older_open(seen) if self._index.file.entry(one.run_id) is None]
            found += [run for run in map(summary_of, older) if self._fits_unread(run)]
        return found

    def _fits_unread(self, run: Summary) -> bool:
        return run.state == OPEN and self._where is None and self._wanted(run)

    async def _fitting(self, runs: list[tuple[RunEntry, Summary]]) -> list[Summary]:
        """Return the runs for which the condition holds; reads the requests if it names their payload."""
        where = self._where
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
        async with aclosing(read_places(self._runs.log, self._runs.topology.inbox, spans)) as records:
            async for record in records:
                if record.key in keys and (id := record.key.decode()) not in found:
                    event = read_event(record)
                    if not isinstance(event, Unreadable):
                        found[id] = payloads_of(event.type, event.content_type, event.data)
        return found

    def _pages(self, entries: Iterable[RunEntry]) -> Iterator[list[RunEntry]]:
        """Yield the runs of which the log has a record, page by page."""
        found, size = (entry for entry in entries if self._index.has(entry)), PAGE
        while page := list(islice(found, size)):
            yield page
            if self._where is not None:
                size = min(2 * size, PAGE_MAX)
