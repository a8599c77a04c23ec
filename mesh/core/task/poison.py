"""Detect poison tasks (tasks that kill their process) from commit metadata, for one partition of one agent's tasks.

A worker writes with each commit that it is *working* on the partition, and takes that back when it hands the partition
over. If the metadata still says so, the next owner knows that the worker died, and which tasks may have been in flight:

    first death    All records that the dead worker may have begun (`claimed`) are suspected once. They are begun again
                   at full speed, but each is *marked* before it begins, many with one commit.
    second death   Marked records are suspected twice. Each begins in an isolated process of its own, marked as well. If
                   it ends, it is no longer suspected.
    third death    That of the isolated process. The record is not begun again: it is answered as a `crash_loop`, for
                   good.

So a poison task is begun three times, and tasks that die with it go on. Killing workers from outside condemns no task,
because only the death of a task's own process counts against it. A worker that dies around an isolated process is weak
evidence. After `ISOLATED_DEATHS_MAX` such deaths the task is not begun again either, because a task that takes both
down would never stop. A single death costs only the commits before the first records. A function made within another
function cannot be called in another process. Its third start is in the worker, as the only marked task, and a death
there condemns it.

A worker that finds its own name was separated from the log and has not died. It then suspects no task of other
partitions either, because all workers lost the log.

If the metadata of a partition cannot be read, no task of it is suspected.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

DEATHS_MAX: Final = 3
"""Deaths after which a record in flight is not begun again."""
ISOLATE_DEATHS_MIN: Final = 2
"""Deaths after which a record in flight is begun in an isolated process."""
CLAIM_MIN: Final = 64
CLAIM_MAX: Final = 4_096
"""Bounds of how far ahead a worker claims records before it begins them. A claim costs a commit, so few are better. All
claimed records are suspected at a death, so short ones are better. The length follows the speed of work."""
CLAIM_QUICK_MS: Final = 200
ISOLATED_DEATHS_MAX: Final = 10
"""Deaths of the surrounding worker after which an isolated record is not begun again."""
MARKED_MAX: Final = 32
"""Records that a process marks at once. More would end the first round of suspected records sooner, but all of them
would be isolated after a second death."""
METADATA_BYTES_MAX: Final = 4_096
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class CommitMarks:
    """Content of the metadata of a commit."""

    working: bool = False
    claimed: int = 0
    """Records below may have been begun."""
    suspected_below: int = 0
    """Records below may have been in flight at a death."""
    marked: frozenset[int] = frozenset()
    """Records that were begun with a mark and have not ended."""
    deaths: Mapping[int, int] = field(default_factory=dict)
    """Record → deaths at which it was in flight, where these are two or more."""
    by: str = ""
    """Name of the working process, unique for its lifetime."""


def encode(marks: CommitMarks, place: int) -> str:
    """Write the metadata of a commit of offset `place`: at most 4,096 bytes. Records below `place` are left out."""
    marked = sorted(offset - place for offset in marks.marked if offset >= place)
    deaths = sorted((-count, offset - place) for offset, count in marks.deaths.items() if offset >= place)
    while True:
        body: dict[str, Any] = {"v": _VERSION}
        if marks.working:
            body |= {"working": True, "claimed": marks.claimed}
        if marks.by:
            body["by"] = marks.by
        if marks.suspected_below > place:
            body["careful"] = marks.suspected_below
        if marked:
            body["marked"] = marked
        if deaths:
            body["deaths"] = [[offset, -count] for count, offset in deaths]
        text = orjson.dumps(body).decode()
        if len(text) <= METADATA_BYTES_MAX or not (marked or deaths):
            return text
        # Dropping evidence is safe: a poison task is begun once more, and no other task is blamed.
        marked, deaths = (marked, deaths[: len(deaths) // 2]) if deaths else (marked[: len(marked) // 2], deaths)


def decode(text: str, place: int) -> CommitMarks:
    """Read the metadata of a commit of offset `place`. Total: foreign metadata gives no marks."""
    try:
        body = orjson.loads(text)
        if not isinstance(body, dict) or body.get("v") != _VERSION:
            return CommitMarks()
        return CommitMarks(
            body.get("working") is True,
            int(body.get("claimed", 0)),
            int(body.get("careful", 0)),
            frozenset(int(offset) + place for offset in body.get("marked", ())),
            {int(offset) + place: int(count) for offset, count in body.get("deaths", ())},
            str(body.get("by", "")),
        )
    except (orjson.JSONDecodeError, TypeError, ValueError):
        return CommitMarks()


class PoisonDetector:
    """Evidence of one worker about one partition while it owns it. Offsets rise; no call waits."""

    __slots__ = (
        *("_ahead", "_by", "_claimed_ms", "_deaths", "_marked"),
        *("suspected_below", "claim_from", "claimed", "predecessor_died", "version"),
    )

    def __init__(self, found: CommitMarks, *, place: int, end: int, by: str = "", away: bool = False) -> None:
        """`found`: the marks at offset `place`, where this worker begins. `end`: end of the partition at that time.
        `by`: name of this worker; if it is also the name in the marks, the log was unreachable and no worker died.
        `away`: the log was unreachable for this worker, so probably for its predecessor as well."""
        self.predecessor_died = found.working and not away and not (by and found.by == by)
        """Whether the worker before this one died."""
        self._by = by
        self.suspected_below = found.suspected_below
        """Records below must be looked up with `death_count` before they begin."""
        self._deaths = {offset: count for offset, count in found.deaths.items() if offset >= place}
        if self.predecessor_died:
            for offset in found.marked:
                self._deaths[offset] = self.death_count(offset) + 1
            self.suspected_below = max(self.suspected_below, min(found.claimed, end))
        self._marked: set[int] = set()
        self._ahead = CLAIM_MIN
        self._claimed_ms = 0.0
        self.claimed = place + CLAIM_MIN
        """Records below may begin after the commit of this claim."""
        self.claim_from = place + CLAIM_MIN // 2
        """First record that needs a `claim` before it begins."""
        self.version = 0
        """Counter of changes that a commit should carry."""

    def death_count(self, offset: int) -> int:
        """Return the number of deaths at which this record may have been in flight."""
        return self._deaths.get(offset, 1 if offset < self.suspected_below else 0)

    @property
    def suspected_count(self) -> int:
        """Number of records that were in flight at two deaths or more."""
        return len(self._deaths)

    def claim(self, offset: int, now_ms: float) -> None:
        """Claim further records before they are needed, because this one begins. `now_ms`: of any steady clock."""
        quick = now_ms - self._claimed_ms < CLAIM_QUICK_MS
        self._ahead = min(self._ahead * 2, CLAIM_MAX) if quick else max(self._ahead // 2, CLAIM_MIN)
        self._claimed_ms = now_ms
        self.claimed = max(self.claimed, offset + 1 + self._ahead)
        self.claim_from = self.claimed - self._ahead // 2
        self.version += 1

    def mark(self, offset: int) -> None:
        """Mark a record; it may begin after the commit of this mark."""
        self._marked.add(offset)
        self.version += 1

    def clear(self, offset: int) -> None:
        """Clear a marked record that has ended, with success or not, without killing its process."""
        self._deaths.pop(offset, None)
        self.unmark(offset)

    def mark_poison(self, offset: int) -> None:
        """Condemn a record that killed its isolated process. A later owner does not begin it again, even if it takes
        over before the answer is known."""
        self._deaths[offset] = ISOLATED_DEATHS_MAX
        self.version += 1

    def unmark(self, offset: int) -> None:
        """Remove the mark of a record that is no longer in work, and keep its deaths."""
        self._marked.discard(offset)
        self.version += 1

    def metadata(self, place: int, *, working: bool = True) -> str:
        """Return the metadata for a commit of offset `place`. `working` False: the partition is handed over."""
        marks = CommitMarks(suspected_below=self.suspected_below, deaths=self._deaths)
        if working:
            marks = CommitMarks(
                True, self.claimed, self.suspected_below, frozenset(self._marked), self._deaths, self._by
            )
        return encode(marks, place)
