"""A mergeable histogram of whole numbers with a bounded relative error: DDSketch (Masson, Rim, Lee, VLDB 2019).

Bucket `i` holds the values in `(GROWTH^(i-1), GROWTH^i]`, so its middle differs from each of them by at most
`RELATIVE_ERROR`. Counts of buckets add up, so the order of additions and merges does not matter. Published libraries
write protobuf or keep no JSON form; this one is a dictionary of counts.
"""

from collections.abc import Iterable, Sequence
from math import ceil, log
from typing import Final

RELATIVE_ERROR: Final = 0.01
"""The largest error of a quantile, as a share of the value; plus one half where it is rounded to a whole number."""
GROWTH: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GROWTH: Final = log(GROWTH)
_ZERO: Final = -1
"""The bucket of zero and of what is below it."""
_SMALL: Final = tuple(_ZERO if value == 0 else ceil(log(value) / _LOG_GROWTH - 1e-9) for value in range(4_096))
"""Buckets of small values, looked up because most durations are small."""


class Histogram:
    """Counts of whole numbers, by bucket."""

    __slots__ = ("buckets",)

    def __init__(self, buckets: dict[int, int] | None = None) -> None:
        self.buckets: dict[int, int] = buckets or {}

    def add(self, value: int) -> None:
        """Count a value. One below zero counts as zero."""
        bucket = bucket_of(value)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def merge(self, other: "Histogram") -> None:
        """Add the counts of another histogram."""
        mine = self.buckets
        for bucket, count in other.buckets.items():
            mine[bucket] = mine.get(bucket, 0) + count

    @property
    def count(self) -> int:
        """The number of values."""
        return sum(self.buckets.values())

    def quantile(self, share: float) -> int | None:
        """Return the value below which `share` of the values lie (nearest rank); None without values."""
        count = self.count
        if not count:
            return None
        rank, seen = max(1, ceil(share * count - 1e-9)), 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= rank:
                return middle_of(bucket)
        raise AssertionError("the rank is at most the count")

    def to_json(self) -> list[list[int]]:
        """Return the buckets as pairs of bucket and count, in order."""
        return [[bucket, count] for bucket, count in sorted(self.buckets.items())]

    @classmethod
    def from_json(cls, pairs: Iterable[Sequence[int]]) -> "Histogram":
        """Read what `to_json` wrote."""
        return cls({pair[0]: pair[1] for pair in pairs})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.buckets == other.buckets

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Histogram({self.buckets!r})"


def bucket_of(value: int) -> int:
    """Return the bucket of a value."""
    if value < len(_SMALL):
        return _SMALL[value] if value > 0 else _ZERO
    return ceil(log(value) / _LOG_GROWTH - 1e-9)


def middle_of(bucket: int) -> int:
    """Return the whole number that stands for the values of a bucket."""
    return 0 if bucket == _ZERO else round(2 * GROWTH**bucket / (GROWTH + 1))
