"""Timers of one partition: what has been scheduled and is not due yet. A wheel of buckets, pure.

A run's deadline is kept as its bare run id, since almost every run ends long before it and there may be a million of
them; retries are kept whole. Firing late by up to one bucket is fine, firing twice does no harm.
"""

import heapq
from collections.abc import Container
from typing import Final

from mesh.core.effect import Schedule

BUCKET_MS: Final = 16


class Timers:
    """Add schedules, ask what is due. `add` is O(1) but for the first timer of a bucket."""

    __slots__ = ("_buckets", "_order")

    def __init__(self) -> None:
        self._buckets: dict[int, list[str | Schedule]] = {}
        self._order: list[int] = []

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
            for timer in self._buckets.pop(number):
                if not isinstance(timer, str):
                    if timer.run_id in runs:
                        found.append(timer)
                elif timer in runs:
                    found.append(Schedule(timer, f"{timer}:deadline", number * BUCKET_MS))
        return found
