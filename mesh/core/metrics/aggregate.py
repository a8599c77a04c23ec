"""The numbers of one scope in one span of time: counts, and histograms. They merge in any order."""

from collections.abc import Iterable, Mapping
from typing import Any

from mesh.core.metrics.histogram import Histogram


class Aggregate:
    """Counts and histograms by name; a missing count is 0."""

    __slots__ = ("counts", "histograms")

    def __init__(self, counts: dict[str, int] | None = None, histograms: dict[str, Histogram] | None = None) -> None:
        self.counts: dict[str, int] = counts or {}
        self.histograms: dict[str, Histogram] = histograms or {}

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a count. Adding 0 leaves no trace."""
        if amount:
            self.counts[name] = self.counts.get(name, 0) + amount

    def observe(self, name: str, value: int) -> None:
        """Add a value to a histogram."""
        histogram = self.histograms.get(name)
        if histogram is None:
            histogram = self.histograms[name] = Histogram()
        histogram.add(value)

    def merge(self, other: "Aggregate") -> None:
        """Add the numbers of another aggregate."""
        for name, amount in other.counts.items():
            self.count(name, amount)
        for name, histogram in other.histograms.items():
            self.histograms.setdefault(name, Histogram()).merge(histogram)

    def quantile(self, name: str, share: float) -> int | None:
        """Return a quantile of a histogram; None without values."""
        histogram = self.histograms.get(name)
        return None if histogram is None else histogram.quantile(share)

    def with_prefix(self, prefix: str) -> dict[str, int]:
        """Return the counts whose name begins with a prefix, without it, the largest first."""
        found = {name.removeprefix(prefix): n for name, n in self.counts.items() if name.startswith(prefix)}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def to_json(self) -> dict[str, Any]:
        """Return plain values; equal aggregates have equal ones."""
        return {
            "counts": dict(sorted(self.counts.items())),
            "histograms": {name: each.to_json() for name, each in sorted(self.histograms.items())},
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Aggregate":
        """Read what `to_json` wrote. Raises KeyError, TypeError, ValueError, AttributeError for other values."""
        histograms = {name: Histogram.from_json(pairs) for name, pairs in plain["histograms"].items()}
        return cls(dict(plain["counts"]), histograms)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Aggregate) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Aggregate({self.to_json()!r})"


def merged(aggregates: Iterable[Aggregate]) -> Aggregate:
    """Return the sum of aggregates."""
    total = Aggregate()
    for one in aggregates:
        total.merge(one)
    return total
