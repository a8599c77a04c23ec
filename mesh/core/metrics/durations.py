"""A histogram of durations in fixed buckets, as Prometheus and OpenTelemetry export it. Counting costs one search."""

from bisect import bisect_left
from typing import Final

BOUNDS_S: Final = (0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the buckets in seconds. Each one costs a line of every scrape for each agent."""


class Durations:
    """Durations in seconds, counted by bucket."""

    __slots__ = ("buckets", "sum_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BOUNDS_S) + 1)
        """The number of durations in each bucket, not cumulated; the last bucket has no upper bound."""
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        self.sum_s += seconds
