"""Read a recording for a what-if: one run with its tasks, or the runs of a window with their recorded endings."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import orjson

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.history.run_fold import Decided
from mesh.core.history.timeline import History
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import Record
from mesh.core.replay.endings import UNKNOWN, RunWhatIf, WindowWhatIf, ending_of_outcome
from mesh.core.replay.recorded_tasks import TaskMatches
from mesh.core.replay.what_if import Variants, WhatIf
from mesh.core.run.state import Run
from mesh.core.topology.model import Topology
from mesh.operations.replay.run_replay import RunReplay, replay_run
from mesh.operations.replay.task_answers import begins_removed
from mesh.operations.runs import Runs
from mesh.operations.verification import Window
from mesh.runtime.log_reader import bounds_between, read_batches
from mesh.runtime.topology_store import read_kept

Variant = Callable[[Topology], Topology]
"""Makes the other topology of each recorded one."""
Read = Callable[[int, int], None]
"""Receives the records read so far and their total."""


@dataclass(slots=True)
class RunComparison:
    """One run under another topology, task by task."""

    replay: RunReplay
    """The run as recorded."""
    history: History
    """The run under the other topology."""
    found: RunWhatIf | None
    """None: the run is not opened under the other topology."""
    matches: TaskMatches = field(default_factory=TaskMatches)


async def what_if_run(
    log: ReadLog, topology: Topology, name: str, variant: Variant, *, runs: Runs | None = None
) -> RunComparison:
    """Decide the run called `name` again under another topology; `runs`: where it is found.

    Raises as `replay_run`, and NotFound without its request.
    """
    replay = await replay_run(log, topology, name, runs=runs)
    replay.require_request()
    recorded = replay.history
    run_id, number = recorded.run_id, recorded.partition
    history = History(topology, run_id, partition=number)
    variants = Variants(topology, replay.kept, variant)
    other = {one.digest: one for one in variants.others.values()}
    results: list[RunWhatIf] = []

    def topology_of(run: Run) -> Topology:
        return other[run.topology]

    def decided(found: Decided) -> None:
        history.follow(found, topology_of)

    first = replay.records[0].offset if replay.records else 0
    what_if = WhatIf(
        variants,
        number=number,
        first_offset=first,
        exact=True,
        done=results.append,
        decided=decided,
    )
    for record in replay.records:
        what_if.take(record)
    if replay.outcome is not None:
        what_if.take_outcome(run_id, replay.outcome)
    what_if.finish()
    own = [found for found in results if found.run_id == run_id]
    return RunComparison(
        replay, history, _last_ending(own, replay.outcome), what_if.matches_of(run_id) or TaskMatches()
    )


def _last_ending(results: Sequence[RunWhatIf], outcome: Mapping[str, Any] | None) -> RunWhatIf | None:
    """Return the last ending of a run beside its recorded outcome. A redrive opens a run again, so it may end twice."""
    if not results:
        return None
    last = next((found for found in results if found.before or found.after.ending == UNKNOWN), results[-1])
    return last if last.before or outcome is None else last._replace(before=ending_of_outcome(outcome))


async def what_if_window(
    log: ReadLog, topology: Topology, window: Window, variant: Variant, *, read: Read = lambda records, total: None
) -> WindowWhatIf:
    """Decide the runs that were requested in a window again under another topology. Raises LogUnavailable, NotFound.

    The inbox is read partition by partition, and each run is forgotten when its endings are compared.
    """
    kept = await read_kept(log, topology, SystemClock())
    variants = Variants(topology, kept, variant)
    inbox, outcomes = [await bounds_between(log, name, window.since_ms) for name in (topology.inbox, topology.outcomes)]
    total = sum(b.end - b.start for spans in (inbox, outcomes) for b in spans.values())
    found, seen = WindowWhatIf(head_removed=begins_removed(await log.bounds(topology.inbox), inbox)), 0

    def count(records: int) -> None:
        nonlocal seen
        seen += records
        read(seen, total)

    for number, bounds in sorted(inbox.items()):
        what_if = WhatIf(variants, number=number, first_offset=bounds.start, until_ms=window.until_ms, done=found.add)
        own = {number: outcomes[number]} if len(inbox) == len(outcomes) else outcomes
        await _pair(log, topology, what_if, (number, bounds), own, len(inbox), count)
        found.outside += what_if.outside
    return found


async def _pair(
    log: ReadLog,
    topology: Topology,
    what_if: WhatIf,
    inbox: tuple[int, Bounds],
    outcomes: Mapping[int, Bounds],
    width: int,
    count: Callable[[int], None],
) -> None:
    """Feed a partition of the inbox, and its outcomes up to the same log time."""
    number, bounds = inbox
    until_ms = what_if.until_ms
    async with (
        aclosing(read_batches(log, topology.inbox, {number: bounds})) as batches,
        _Outcomes(read_batches(log, topology.outcomes, outcomes), number, width, count) as reported,
    ):
        async for batch in batches:
            for record in batch:
                what_if.take(record)
            count(len(batch))
            await reported.feed(what_if, batch[-1].timestamp)
            if until_ms is not None and batch[-1].timestamp >= until_ms and what_if.idle:
                return
        await reported.feed(what_if, None)
        what_if.finish()


class _Outcomes:
    """The outcomes of one inbox partition, in the order of the log. A context that closes their reader."""

    def __init__(
        self,
        batches: AsyncGenerator[Sequence[Record]],
        number: int,
        width: int,
        count: Callable[[int], None],
    ) -> None:
        self._batches, self._number, self._width, self._count = batches, number, width, count
        self._next: list[Record] = []

    async def __aenter__(self) -> "_Outcomes":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._batches.aclose()

    async def feed(self, what_if: WhatIf, until_ms: int | None) -> None:
        """Feed the outcomes that were published up to a time; None: all."""
        while True:
            if not self._next:
                batch = await anext(self._batches, None)
                if batch is None:
                    return
                self._count(len(batch))
                self._next = list(reversed(batch))
            while self._next and (until_ms is None or self._next[-1].timestamp <= until_ms):
                record = self._next.pop()
                body = _ending_in(record)
                if body is not None and self._is_own(record):
                    what_if.take_outcome(body["run"], body)
            if self._next:
                return

    def _is_own(self, record: Record) -> bool:
        return self._width == 1 or partition_of(record.key or b"", self._width) == self._number


def _ending_in(record: Record) -> dict[str, Any] | None:
    """Return the body of an outcome; None for an answer to a request that opened no run."""
    try:
        body = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return None
    whole = isinstance(body, dict) and isinstance(body.get("ending"), str) and isinstance(body.get("run"), str)
    return body if whole and "took_ms" in body else None
