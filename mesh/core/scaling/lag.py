"""What waits for an agent, told from the offsets of its group alone: how much, since when, how fast it is answered.

A record waits from the moment it lies in the log until the group has committed beyond it, so what is in work counts as
waiting too, and one slow task holds the place of all that was answered behind it. Every consumer group's lag means
this, and scalers of the field (KEDA's for Kafka) read the same number.

The age needs no clock but ours: it is remembered when the end of a partition was first seen beyond the place that the
group has not passed. So it is at most one sample too small, and what lay there before the first sample counts from it.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

WINDOW_MS: Final = 5_000
"""Rates are those of the last samples within this time."""
MARKS_MAX: Final = 256
"""How many ends are remembered for each partition; of more, every second is forgotten, the oldest never."""


class GroupOffsets(NamedTuple):
    """Where a group stands in a partition: the next offset to read, and the offset the next record will get."""

    committed: int
    end: int

    @property
    def lag(self) -> int:
        """Records that are not committed."""
        return max(0, self.end - self.committed)


class Backlog(NamedTuple):
    """An agent's backlog at one moment."""

    lag: int = 0
    """Tasks not answered and committed, in all partitions."""
    age_ms: float = 0
    """Of the oldest of them."""
    arriving: float = 0
    """Tasks a second that came in."""
    answered: float = 0
    """Tasks a second that were done."""
    partitions: int = 0
    fullest: int = 0
    """The partition with the largest lag."""
    fullest_lag: int = 0
    samples: int = 0
    """How many stand behind the rates; with one there are none."""
    ages_ms: tuple[float, float] = (0, 0)
    """Of the oldest task at the first and at the last of them."""

    @property
    def gaining(self) -> float:
        """Tasks a second by which the backlog shrinks; negative: it grows."""
        return self.answered - self.arriving


class _Seen(NamedTuple):
    at_ms: float
    committed: int
    end: int
    age_ms: float


class BacklogSampler:
    """One agent's, sample after sample. Times are those of any steady clock, rising."""

    __slots__ = ("_marks", "_seen")

    def __init__(self) -> None:
        self._marks: dict[int, deque[tuple[int, float]]] = {}
        """Partition → ends as they were seen, with the time; the first lies beyond what is committed."""
        self._seen: deque[_Seen] = deque()

    def sample(self, at_ms: float, places: Mapping[int, GroupOffsets], *, anew: bool = False) -> Backlog:
        """What waits now. `anew`: what answers it has changed, so rates begin here."""
        age_ms = max((self._age(at_ms, number, place) for number, place in places.items()), default=0.0)
        now = _Seen(at_ms, sum(p.committed for p in places.values()), sum(p.end for p in places.values()), age_ms)
        if anew:
            self._seen.clear()
        while self._seen and at_ms - self._seen[0].at_ms > WINDOW_MS:
            self._seen.popleft()
        self._seen.append(now)
        first = self._seen[0]
        seconds = (at_ms - first.at_ms) / 1_000
        fullest = max(places, key=lambda number: (places[number].lag, -number), default=0)
        return Backlog(
            lag=sum(place.lag for place in places.values()),
            age_ms=age_ms,
            arriving=max(0, now.end - first.end) / seconds if seconds > 0 else 0.0,
            answered=max(0, now.committed - first.committed) / seconds if seconds > 0 else 0.0,
            partitions=len(places),
            fullest=fullest,
            fullest_lag=places[fullest].lag if places else 0,
            samples=len(self._seen),
            ages_ms=(first.age_ms, age_ms),
        )

    def _age(self, at_ms: float, number: int, place: GroupOffsets) -> float:
        marks = self._marks.setdefault(number, deque())
        if marks and marks[-1][0] > place.end:
            marks.clear()  # the topic was made anew
        while marks and marks[0][0] <= place.committed:
            marks.popleft()
        if place.end > place.committed and (not marks or place.end > marks[-1][0]):
            marks.append((place.end, at_ms))
            if len(marks) > MARKS_MAX:
                kept = list(marks)
                del kept[1:-1:2]  # what came before a forgotten end counts as younger than it is, never as older
                self._marks[number] = marks = deque(kept)
        return at_ms - marks[0][1] if marks else 0.0
