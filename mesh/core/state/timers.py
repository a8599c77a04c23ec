"""Timers of one partition: schedules that are not due yet, in a wheel of buckets. Pure.

A deadline is kept as a bare run id: there may be a million, and almost every run ends long before its deadline. Retries
are kept whole. A timer may fire late by up to one bucket. A timer that fires twice does no harm.
"""

import heapq
from collections.abc import Container
from typing import Final

from mesh.core.run.effects import Schedule

BUCKET_MS: Final = 16
"""Width of a bucket."""


class Timers:
    """Wheel of timers: `add` schedules, `due` takes them out. `add` is O(1) except for the first timer of a bucket."""

    __slots__ = ("_buckets", "_order", "_unswept")

    def __init__(self) -> None:
        self._buckets: dict[int, list[str | Schedule]] = {}
        self._order: list[int] = []
        """Heap of the numbers of buckets, also of some that a sweep emptied."""
        self._unswept: list[int] = []
        """Numbers of buckets that this round of `sweep` has not visited."""

    def __len__(self) -> int:
        """Return the number of timers."""
        return sum(map(len, self._buckets.values()))

    def add(self, timer: Schedule, due_ms: int) -> bool:
        """Add a timer that is due at `due_ms` of the caller's clock, which may differ from log time.

        Returns whether its bucket is now the first: a caller that waits for a later one must wait less."""
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
        """Return the time in ms at which the next bucket is due; None without timers."""
        return self._order[0] * BUCKET_MS if self._order else None

    def due(self, now_ms: int, runs: Container[str]) -> list[Schedule]:
        """Remove all timers that are due at `now_ms`, earliest bucket first, and return those of `runs`."""
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
        """Remove timers of runs that are not in `runs`. One call visits about `timers_max`; the next call continues.

        Most runs end long before their deadline. Without the sweep each would hold a timer until then.
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
