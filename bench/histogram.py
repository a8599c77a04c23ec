"""Latencies counted at three significant digits, as an HDR histogram does: small however many, exact within 0.5 %."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil
from typing import Final

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9)
DIGITS: Final = 3


class Histogram:
    """Values of any unit, zero or more."""

    def __init__(self, values: Iterable[float] = ()) -> None:
        self._counts: Counter[float] = Counter()
        self.count = 0
        self.max = 0.0
        """Exact."""
        for value in values:
            self.record(value)

    @classmethod
    def of(cls, pairs: Iterable[Sequence[float]]) -> "Histogram":
        """One from what `pairs` answered; its maximum is then as exact as the rest."""
        found = cls()
        for value, times in pairs:
            found.record(value, int(times))
        return found

    def record(self, value: float, times: int = 1) -> None:
        """Count a value. Raises ValueError when it is negative."""
        if value < 0:
            raise ValueError(f"a value of a histogram is negative: {value}")
        self._counts[float(f"{value:.{DIGITS}g}")] += times
        self.count += times
        self.max = max(self.max, value)

    def percentile(self, percent: float) -> float:
        """The value that so many percent of all do not exceed (nearest rank); 0 of nothing."""
        rank = max(1, ceil(percent / 100 * self.count - 1e-9))
        seen = 0
        for value in sorted(self._counts):
            seen += self._counts[value]
            if seen >= rank:
                return min(value, self.max)
        return 0.0

    def pairs(self) -> list[list[float]]:
        """`[value, how often]`, ascending."""
        return [[value, self._counts[value]] for value in sorted(self._counts)]
