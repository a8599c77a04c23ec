"""Contiguous commits despite out-of-order completion, for one partition in one assignment.

Work on records finishes in any order. Only the contiguous finished prefix may be committed, or a crash loses skipped
records. Rules, each from a real bug (reference: confluentinc/parallel-consumer #826, #894, #909):

 1. Every record of a fetched batch is taken before anything is awaited.
 2. A completion names the tracker it belongs to; one from an earlier assignment has its own, discarded tracker.
 3. The offset to commit is read in one synchronous step: the lowest unfinished offset, else one past the highest taken.
 4. Offsets are those received; gaps (compaction, control records) are normal.
"""

from collections import deque


class OffsetTracker:
    """Taken offsets and their completion. Offsets are taken in rising order. All calls are O(1) amortised."""

    __slots__ = ("_first", "_next", "_taken", "_working")

    def __init__(self) -> None:
        self._taken: deque[int] = deque()
        """In rising order, from the lowest unfinished one on."""
        self._working: set[int] = set()
        self._first = 0
        self._next: int | None = None

    def __len__(self) -> int:
        """Return how many taken records are not committable yet: the span that a crash would repeat."""
        return len(self._taken)

    def take(self, offset: int) -> None:
        """Note that a record was received. Raises ValueError if offsets do not rise."""
        if self._next is not None and offset < self._next:
            raise ValueError(f"offset {offset} was added after {self._next - 1}; offsets rise within an assignment")
        if self._next is None:
            self._first = offset
        self._taken.append(offset)
        self._working.add(offset)
        self._next = offset + 1

    def finish(self, offset: int) -> None:
        """Note that the record's outcome is durable. Raises ValueError for an offset that is not in work."""
        if offset not in self._working:
            raise ValueError(f"offset {offset} is not in work")
        self._working.remove(offset)
        while self._taken and self._taken[0] not in self._working:
            self._taken.popleft()

    def is_finished(self, offset: int) -> bool:
        """Return whether this record was taken and is finished, committed or not."""
        return self._next is not None and self._first <= offset < self._next and offset not in self._working

    def reaches(self, offset: int) -> bool:
        """Return whether a record at or after this offset was taken."""
        return self._next is not None and self._next > offset

    def commit_offset(self) -> int | None:
        """Return the offset to commit: everything below it is finished. None if nothing was taken."""
        return self._taken[0] if self._taken else self._next
