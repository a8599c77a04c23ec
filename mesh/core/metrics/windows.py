"""Windows of time. The base is tumbling, `BASE_MS` long; longer and hopping windows are merges of base windows.

Each source partition is counted alone, with the next offset that it has not counted, so a record that is read twice
counts once. The parts of all partitions merge in any order. The log itself is the state: a part can be counted again
from `restart`, and is then equal.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, NamedTuple

from mesh.core.metrics.aggregate import Aggregate
from mesh.core.metrics.measurements import kept_ms, meter_of
from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.topology.model import Topology

BASE_MS: Final = 10_000
HOPS: Final[Mapping[int, int]] = {BASE_MS: BASE_MS, 60_000: 10_000, 3_600_000: 60_000}
"""Length of windows → how far their starts are apart, in ms. The first ones tumble, the others hop."""
GRACE_MS: Final = 500
"""How long after its end a window is complete: an append may be stamped a little before it can be read."""
Scoped = dict[str, Aggregate]
"""Scope → its numbers in one window."""


class Restart(NamedTuple):
    """A place to count a partition again from: the first offset to read, and the first whole window from there."""

    offset: int
    since_ms: int


class PartitionWindows:
    """Base windows of one source partition, from records in order. Windows before `since_ms` are not counted."""

    def __init__(self, topology: Topology, place: TopicPartition, *, since_ms: int = 0, next_offset: int = 0) -> None:
        self.place = place
        self.next_offset = next_offset
        """The next offset that is not counted."""
        self.windows: dict[int, Scoped] = {}
        """Start → numbers, the earliest first; until `forget`."""
        self.changed: set[int] = set()
        """Starts of windows that changed since the owner emptied this."""
        self.last_ms = 0
        """Log time of the last record."""
        self._since_ms, self._kept_ms = since_ms, kept_ms(topology)
        self._meter = meter_of(place.topic, topology)
        self._firsts: deque[tuple[int, int]] = deque()
        """Start of a window and offset of its first record, for as long as a restart may need it."""
        self._uncounted: Scoped = {}

    def take(self, records: Iterable[Record]) -> None:
        """Count records, but for those that are counted already. Time does not fall, though a producer's clock may."""
        for record in records:
            if record.offset < self.next_offset:
                continue
            self.next_offset = record.offset + 1
            self.last_ms = at_ms = max(record.timestamp, self.last_ms)
            start = start_of(at_ms)
            if not self._firsts or self._firsts[-1][0] < start:
                self._firsts.append((start, record.offset))
            if start >= self._since_ms:
                self.changed.add(start)
                self._meter.take(record, at_ms, partial(_scope, self.windows.setdefault(start, {})))
            else:
                self._uncounted.clear()
                self._meter.take(record, at_ms, partial(_scope, self._uncounted))

    def forget(self) -> None:
        """Forget the windows that ended by the partition's own time and that have not changed any more."""
        current = start_of(self.last_ms)
        for start in [start for start in self.windows if start < current and start not in self.changed]:
            del self.windows[start]
        oldest = self.restart().offset
        while len(self._firsts) > 1 and self._firsts[0][1] < oldest:
            self._firsts.popleft()

    def restart(self) -> Restart:
        """Return where to begin so that all windows held here are counted again. Later ones are whole, too."""
        since_ms = min(self.windows, default=start_of(self.last_ms))
        first = self.next_offset
        for start, offset in self._firsts:
            if start >= start_of(since_ms - self._kept_ms):
                first = offset
                break
        return Restart(first, max(since_ms, self._since_ms))


def start_of(at_ms: int, length_ms: int = BASE_MS) -> int:
    """Return the start of the tumbling window that holds a time."""
    return at_ms - at_ms % length_ms


def _scope(window: Scoped, name: str) -> Aggregate:
    aggregate = window.get(name)
    if aggregate is None:
        aggregate = window[name] = Aggregate()
    return aggregate


def add_window(windows: dict[int, Scoped], start: int, part: Mapping[str, Aggregate]) -> None:
    """Merge a part of a window into windows by start. The part stays as it is."""
    window = windows.setdefault(start, {})
    for scope, aggregate in part.items():
        _scope(window, scope).merge(aggregate)


def window_over(
    base: Mapping[int, Scoped], start: int, length_ms: int, wanted: Callable[[str], bool] = lambda scope: True
) -> Scoped:
    """Return the window of this start and length as the merge of base windows. `wanted`: scopes to merge."""
    found: Scoped = {}
    for at in range(start, start + length_ms, BASE_MS):
        for scope, aggregate in base.get(at, {}).items():
            if wanted(scope):
                _scope(found, scope).merge(aggregate)
    return found


def hopping(base: Mapping[int, Scoped], length_ms: int) -> dict[int, Scoped]:
    """Return the windows of a length of HOPS that hold any base window, by start."""
    hop_ms = HOPS[length_ms]
    starts = {at for start in base for at in range(start_of(start, hop_ms) - length_ms + hop_ms, start + 1, hop_ms)}
    return {start: window_over(base, start, length_ms) for start in sorted(starts)}
