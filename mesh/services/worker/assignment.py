"""A partition in one assignment, and one record of it to work on."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from mesh.adapters.ports import Commit
from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.task.offsets import OffsetTracker
from mesh.core.task.poison import PoisonDetector


class PartitionAssignment:
    """A partition while this worker owns it. A later assignment of the same partition is another object.

    A partition may come back to the process: each rebalance takes all partitions and gives most of them back, and the
    group expels a process whose event loop is blocked. The new assignment then knows what the previous one answered and
    did not commit, and does not begin that again. Without this, a function that blocks for
    longer than the session timeout would be called forever.
    """

    __slots__ = (
        *("_answered_late", "_changed", "_committed", "claimed", "commit_lock", "in_work", "is_owned", "is_ready"),
        *("is_started", "partition", "previous", "start_offset", "tracker", "watch"),
    )

    def __init__(self, partition: TopicPartition, previous: "PartitionAssignment | None" = None) -> None:
        self.partition = partition
        self.previous = previous
        """The last assignment of the partition to this process, while a record of it may come back."""
        self.is_owned = True
        """False after the partition was revoked: no record of it is begun any more."""
        self.is_started = False
        """The marks that the previous owner left are known."""
        self.is_ready = False
        """The takeover is committed, so records may be read."""
        self.in_work = 0
        """Number of records that were begun and have no durable answer."""
        self.tracker = OffsetTracker()
        self.watch: PoisonDetector
        self.start_offset = 0
        self.claimed = 0
        """Records below this offset may begin: a commit has said so."""
        self.commit_lock = asyncio.Lock()
        """Callers that wait for the same marks to be committed share one commit."""
        self._committed: tuple[int, int, bool] | None = None
        self._answered_late: set[int] = set()
        """Offsets that were answered after the partition was revoked."""
        self._changed = asyncio.Event()

    def start(self, watch: PoisonDetector, offset: int) -> None:
        """Begin at `offset` with what the previous owner left."""
        self.watch, self.start_offset, self.is_started = watch, offset, True
        assignment = self
        while (previous := assignment.previous) is not None:
            if previous.tracker.reaches(offset):
                assignment = previous
            else:
                assignment.previous = previous.previous

    def may_begin(self, offset: int) -> bool:
        """Whether a record may begin at once: it is owned, claimed by a commit, and not suspected."""
        watch = self.watch
        is_claimed = watch.suspected_below <= offset < self.claimed and offset < watch.claim_from
        return is_claimed and self.is_owned and self.previous is None

    def mark_answered(self, offset: int) -> None:
        """Remember that an answer is on its way to the log."""
        if not self.is_owned:
            self._answered_late.add(offset)

    def finish(self, offset: int) -> None:
        """Note that the answer of a record is durable."""
        self.tracker.finish(offset)
        if not self.is_owned:  # otherwise `answered_before` cannot be waiting for it
            self._changed.set()

    async def answered_before(self, offset: int) -> bool:
        """Return whether an earlier assignment to this process answered the record, once that answer is durable."""
        previous = self.previous
        while previous is not None:
            while offset in previous._answered_late and not previous.tracker.is_finished(offset):
                previous._changed.clear()
                await previous._changed.wait()
            if previous.tracker.is_finished(offset):
                return True
            previous = previous.previous
        return False

    def next_commit(self, *, working: bool) -> "PartitionCommit | None":
        """Return the commit that is due; None when the last one said the same. `working`: this worker stays owner."""
        offset = self.tracker.commit_offset()
        if offset is None:
            offset = self.start_offset
        content = (offset, self.watch.version, working)
        if content == self._committed:
            return None
        return PartitionCommit(
            Commit(offset, self.watch.metadata(offset, working=working)), content, self.watch.claimed
        )

    @property
    def committed_version(self) -> int:
        """The version of the marks in the last acknowledged commit."""
        return -1 if self._committed is None else self._committed[1]

    def record_commit(self, commit: "PartitionCommit") -> None:
        """Note that a commit was acknowledged."""
        self._committed, self.claimed = commit.content, commit.claimed


class PartitionCommit(NamedTuple):
    """A commit of one partition. `content`: offset, version of the marks, whether the worker stays owner."""

    commit: Commit
    content: tuple[int, int, bool]
    claimed: int


class Work:
    """One record to work on, and the assignment it came with."""

    __slots__ = ("assignment", "record", "sent")

    def __init__(self, record: Record, assignment: PartitionAssignment) -> None:
        self.record, self.assignment = record, assignment
        self.sent: Callable[[], None] | None = None
        """Ends the span of the answer on its way to the log, if it has one."""

    @property
    def death_count(self) -> int:
        """The number of worker deaths at which the record may have been in flight."""
        return self.assignment.watch.death_count(self.record.offset)
