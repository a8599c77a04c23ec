"""Backlog of an agent, from the offsets of its group alone: its size, its age, and the rates of arrival and answers.

A record waits from its append until the group has committed beyond it. So tasks in progress count as waiting, too. One
slow task also keeps the answered tasks behind it in the lag. This is the usual meaning of a consumer group's lag; other
scalers (KEDA's for Kafka) read the same number.

The age needs only the local clock: the sampler remembers when it first saw the end of a partition beyond the committed
offset. So the age is at most one sample too small. Records from before the first sample count from that sample.
"""

from collections import deque
from collections.abc import Mapping
from typing import Final, NamedTuple

WINDOW_MS: Final = 5_000
"""Window of the samples from which rates are computed."""
MARKS_MAX: Final = 256
"""Number of ends remembered per partition. Beyond it every second one is dropped, but never the oldest."""


class GroupOffsets(NamedTuple):
    """Offsets of a group in a partition: the next one to read, and the one that the next record will get."""

    committed: int
    end: int

    @property
    def lag(self) -> int:
        """Return the number of records that are not committed."""
        return max(0, self.end - self.committed)


class GroupLag(NamedTuple):
    """How far a consumer group is behind in one topic, at one moment."""

    consumer: str
    """An agent, or a service."""
    topic: str
    partitions: Mapping[int, int]
    """Partition → records that are not committed."""
    age_ms: int | None = 0
    """Age of the oldest of them; 0: there is none, None: it could not be read."""
    in_flight: int | None = None
    """How many of them workers may be at; None: a service, which reads in batches."""

    @property
    def lag(self) -> int:
        """Return the number of records that are not committed, in all partitions."""
        return sum(self.partitions.values())


class Backlog(NamedTuple):
    """Backlog of an agent at one moment."""

    lag: int = 0
    """Tasks that are not answered and committed, in all partitions."""
    age_ms: float = 0
    """Age of the oldest of these tasks."""
    arriving: float = 0
    """Tasks that arrived, per second."""
    answered: float = 0
    """Tasks that were answered, per second."""
    partitions: int = 0
    fullest: int = 0
    """Partition with the largest lag."""
    fullest_lag: int = 0
    samples: int = 0
    """Number of samples behind the rates; with one sample there are no rates."""
    ages_ms: tuple[float, float] = (0, 0)
    """Age of the oldest task at the first and at the last of these samples."""

    @property
    def gaining(self) -> float:
        """Return the tasks per second by which the backlog shrinks; negative: it grows."""
        return self.answered - self.arriving


class _Seen(NamedTuple):
    at_ms: float
    committed: int
    end: int
    age_ms: float


def group_lag(
    consumer: str,
    topic: str,
    places: Mapping[int, GroupOffsets],
    *,
    oldest_ms: Mapping[int, int],
    now_ms: int,
    workers: Mapping[int, str] | None = None,
    lanes: int = 0,
) -> GroupLag:
    """Return the lag of a group in a topic. The one place of this arithmetic for everything that shows lag.

    `oldest_ms`: log time of the first record that is not committed, of each partition in which one is known. `now_ms`:
    log time. `workers`: partition → the process at work on it; None for a service. A worker is at most at `lanes`
    records of one agent at once.
    """
    behind = {number: place.lag for number, place in sorted(places.items())}
    waiting = [number for number, lag in behind.items() if lag]
    known = [oldest_ms[number] for number in waiting if number in oldest_ms]
    age_ms = max(0, now_ms - min(known)) if known else None if waiting else 0
    if workers is None:
        return GroupLag(consumer, topic, behind, age_ms)
    each: dict[str, int] = {}
    for number, worker in workers.items():
        each[worker] = each.get(worker, 0) + behind.get(number, 0)
    return GroupLag(consumer, topic, behind, age_ms, sum(min(lanes, lag) for lag in each.values()))


class BacklogSampler:
    """Sampler of one agent's backlog. Times are those of any monotonic clock."""

    __slots__ = ("_marks", "_seen")

    def __init__(self) -> None:
        self._marks: dict[int, deque[tuple[int, float]]] = {}
        """Partition → ends with the time of their sample; the first end is beyond the committed offset."""
        self._seen: deque[_Seen] = deque()

    def sample(self, at_ms: float, places: Mapping[int, GroupOffsets], *, restarted: bool = False) -> Backlog:
        """Add a sample and return the backlog. `restarted`: the set of workers has changed, so rates begin here."""
        age_ms = max((self._age(at_ms, number, place) for number, place in places.items()), default=0.0)
        now = _Seen(at_ms, sum(p.committed for p in places.values()), sum(p.end for p in places.values()), age_ms)
        if restarted:
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
            marks.clear()  # the topic was created again
        while marks and marks[0][0] <= place.committed:
            marks.popleft()
        if place.end > place.committed and (not marks or place.end > marks[-1][0]):
            marks.append((place.end, at_ms))
            if len(marks) > MARKS_MAX:
                kept = list(marks)
                del kept[1:-1:2]  # records before a dropped end count as younger than they are, never as older
                self._marks[number] = marks = deque(kept)
        return at_ms - marks[0][1] if marks else 0.0
