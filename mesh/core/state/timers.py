"""Timers of one partition: what has been scheduled and is not due yet. A wheel of buckets, pure.

A run's deadline is kept as its bare run id, since almost every run ends long before it and there may be a million of
them; retries are kept whole. Firing late by up to one bucket is fine, firing twice does no harm.
"""

import heapq
from collections.abc import Container
from typing import Final

from mesh.core.run.effects import Schedule

BUCKET_MS: Final = 16


class Timers:
    """Add schedules, ask what is due. `add` is O(1) but for the first timer of a bucket."""

    __slots__ = ("_buckets", "_order", "_unswept")

    def __init__(self) -> None:
        self._buckets: dict[int, list[str | Schedule]] = {}
        self._order: list[int] = []
        """A heap of the numbers of buckets, and of some that were swept empty."""
        self._unswept: list[int] = []
        """Buckets that this round of `sweep` has yet to look at."""

    def __len__(self) -> int:
        """Timers held."""
        return sum(map(len, self._buckets.values()))

    def add(self, timer: Schedule, due_ms: int) -> bool:
        """Remember a timer that is due at `due_ms` of the caller's clock, which may be another than log time. Answers
        whether it is now the first: who waits for another waits too long."""
        number = -(-due_ms // BUCKET_MS)  # never early: round up
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = []
            heapq.heappush(self._order, number)
            bucket.append(timer if timer.task_id else timer.run_id)
            return self._order[0] == number
        bucket.append(timer if timer.task_id else timer.run_id)
        return False

    def next_ms(self) -> int | None:
        """When the next bucket is due; None without timers."""
        return self._order[0] * BUCKET_MS if self._order else None

    def due(self, now_ms: int, runs: Container[str]) -> list[Schedule]:
        """Take out all timers that are due at `now_ms`, earliest bucket first; answers those of these `runs`."""
        found: list[Schedule] = []
        while self._order and self._order[0] * BUCKET_MS <= now_ms:
            number = heapq.heappop(self._order)
            for timer in self._buckets.pop(number, ()):
                if not isinstance(timer, str):
                    if timer.run_id in runs:
                        found.append(timer)
                elif timer in runs:
                    found.append(Schedule(timer, f"{timer}:deadline", number * BUCKET_MS))
        return found

    def sweep(self, runs: Container[str], timers_max: int) -> None:
        """Forget timers of runs that are not among `runs`, looking at about `timers_max`. Later calls go on from there.

        Most runs end long before their deadline: without this each would hold a timer until then.
        """
        if not self._unswept:
            self._unswept = list(self._buckets)
            if len(self._order) > 2 * len(self._buckets):
                self._order = list(self._buckets)
                heapq.heapify(self._order)
        looked = 0
        while self._unswept and looked < timers_max:
            number = self._unswept.pop()
            bucket = self._buckets.get(number, ())
            looked += 1 + len(bucket)
            left = [timer for timer in bucket if (timer if isinstance(timer, str) else timer.run_id) in runs]
            if left:
                self._buckets[number] = left
            else:
                self._buckets.pop(number, None)
