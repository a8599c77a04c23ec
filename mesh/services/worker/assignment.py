"""A partition in one assignment, and one record of it to work on."""

import asyncio

from mesh.adapters.ports import Commit
from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.task.offsets import OffsetTracker
from mesh.core.task.poison import PoisonDetector


class Held:
    """What a worker knows about a partition that is its own. Another assignment of it has another one.

    A partition that comes back to the process (each rebalance takes all and gives most of it back; a process whose loop
    was blocked was put out of its group) brings back what was answered here and not committed. That is not begun again:
    a function that always blocks for longer than the session timeout would be called for ever.
    """

    __slots__ = (
        *("_news", "_said", "_sent", "before", "begun", "claimed", "live"),
        *("open", "partition", "place", "ready", "speaking", "tracker", "watch"),
    )

    def __init__(self, partition: TopicPartition, before: "Held | None" = None) -> None:
        self.partition = partition
        self.before = before
        """The last assignment of it to this process, as far as something of it may come back."""
        self.live = True
        """It is ours. Afterwards nothing of it is begun."""
        self.begun = False
        """What the one before left is known."""
        self.ready = False
        """It was taken over: its records may come."""
        self.open = 0
        """Records begun and not answered for good."""
        self.tracker = OffsetTracker()
        self.watch: PoisonDetector
        self.place = 0
        """Where this assignment began."""
        self.claimed = 0
        """Records below may begin, as a commit has said."""
        self.speaking = asyncio.Lock()
        """Of who waits until something is said: one commit says it for all."""
        self._said: tuple[int, int, bool] | None = None
        self._sent: set[int] = set()
        """Answered when it was not ours any more."""
        self._news = asyncio.Event()

    def begin(self, watch: PoisonDetector, place: int) -> None:
        """What the one before left, and where."""
        self.watch, self.place, self.begun = watch, place, True
        held = self
        while (before := held.before) is not None:
            if before.tracker.reaches(place):
                held = before
            else:
                held.before = before.before

    def free(self, offset: int) -> bool:
        """This record may begin now, and nothing need be known or said before."""
        watch = self.watch
        told = watch.suspected_below <= offset < self.claimed and offset < watch.claim_from
        return told and self.live and self.before is None

    def on_its_way(self, offset: int) -> None:
        """This record has an answer, which is on its way to the log."""
        if not self.live:
            self._sent.add(offset)

    def finish(self, offset: int) -> None:
        """This record's answer is durable."""
        self.tracker.finish(offset)
        if not self.live:  # else nobody can wait for it: see `answered_before`
            self._news.set()

    async def answered_before(self, offset: int) -> bool:
        """Whether an earlier assignment to this process has answered this record; once that is durable."""
        held = self.before
        while held is not None:
            while offset in held._sent and not held.tracker.is_finished(offset):
                held._news.clear()
                await held._news.wait()
            if held.tracker.is_finished(offset):
                return True
            held = held.before
        return False

    def saying(self, *, working: bool) -> "Saying | None":
        """What a commit would say now; None when that was said."""
        place = self.tracker.commit_offset()
        if place is None:
            place = self.place
        said = (place, self.watch.version, working)
        if said == self._said:
            return None
        return Saying(Commit(place, self.watch.metadata(place, working=working)), said, self.watch.claimed)

    @property
    def version_said(self) -> int:
        """What commits have said of the watch."""
        return -1 if self._said is None else self._said[1]

    def was_said(self, saying: "Saying") -> None:
        """The commit was acknowledged."""
        self._said, self.claimed = saying.said, saying.claimed


class Saying:
    """A commit of a partition, and what it stands for."""

    __slots__ = ("claimed", "commit", "said")

    def __init__(self, commit: Commit, said: tuple[int, int, bool], claimed: int) -> None:
        self.commit, self.said, self.claimed = commit, said, claimed


class Work:
    """One record to work on, and the assignment it came with."""

    __slots__ = ("held", "record")

    def __init__(self, record: Record, held: Held) -> None:
        self.record, self.held = record, held

    @property
    def death_count(self) -> int:
        """Deaths at which it may have been in flight."""
        return self.held.watch.death_count(self.record.offset)
