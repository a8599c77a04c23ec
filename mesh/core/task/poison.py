"""Which task kills its process? Told from what the group's commits say, for one partition of one agent's tasks.

A worker writes with each commit that it is at *work* on the partition, and takes that back when it hands over. Who
takes a partition over that still says so knows that its worker died, and what may have been in flight then:

    first death    All that the dead one may have begun (`claimed`) is suspected once. It is done again at full speed;
                   each of these records is *marked* before it begins, many with one commit.
    second death   What was marked is suspected twice. Each of these records is begun *apart*: in a process of its own,
                   with nothing else in it, marked, too; no longer suspected when it ends.
    third death    That of its own process. It is not begun again: it is answered as a `crash_loop`, for good.

So a killer is begun three times, whoever dies with it goes on, and who kills workers from outside makes no innocent
look like a killer: a record's own process speaks against it. (A worker that dies around it says little, but not
nothing, else what takes both down would be begun for ever: that may happen `APART_DEATHS_MAX` times.) A single death
makes nothing slower but by the commits before the first records. Where a function cannot be called in another process
(it was made within another function), the third start is in the worker, as the only one that is marked, and its death
condemns.

Who comes back to its own work, since the log was away for a while, has not died; and who comes back then blames nobody
else for what he finds, since the log was away for all.

Nothing is known of a partition whose metadata cannot be read: nothing is suspected.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

DEATHS_MAX: Final = 3
"""What was in flight at so many deaths is not begun again."""
APART_FROM: Final = 2
"""What was in flight at so many deaths is begun in a process of its own."""
CLAIM_MIN: Final = 64
CLAIM_MAX: Final = 4_096
"""How far ahead of what it begins a worker says it may begin. A commit says it, so rarely is better; but all that was
claimed is suspected at its death, so little is better: it follows the speed at which records are begun."""
CLAIM_QUICK_MS: Final = 200
APART_DEATHS_MAX: Final = 10
"""A record that was begun apart is not begun again after so many deaths of the worker around it."""
MARKED_MAX: Final = 32
"""Records that a process has marked at once. With more, the first round of suspects would be over sooner; but all of
them would be begun apart after a second death."""
METADATA_BYTES_MAX: Final = 4_096
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class CommitMarks:
    """What the metadata of a commit says."""

    working: bool = False
    claimed: int = 0
    """Records below may have been begun."""
    suspected_below: int = 0
    """Records below may have been in flight at a death."""
    marked: frozenset[int] = frozenset()
    """Begun with a mark, and not ended."""
    deaths: Mapping[int, int] = field(default_factory=dict)
    """Record → deaths at which it was in flight, where these are two or more."""
    by: str = ""
    """Who is at work: the process, for as long as it lives."""


def encode(marks: CommitMarks, place: int) -> str:
    """As metadata of a commit of `place`: at most 4,096 bytes. What is below `place` is left out."""
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
        # Less suspicion is the safe side: a killer is begun once more, and nobody else is blamed.
        marked, deaths = (marked, deaths[: len(deaths) // 2]) if deaths else (marked[: len(marked) // 2], deaths)


def decode(text: str, place: int) -> CommitMarks:
    """The marks in the metadata of a commit of `place`. Total: what is not ours says nothing."""
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
    """What one worker knows and says about one partition while it has it. Offsets rise; nothing here waits."""

    __slots__ = (
        *("_ahead", "_by", "_claimed_ms", "_deaths", "_marked"),
        *("suspected_below", "claim_from", "claimed", "predecessor_died", "version"),
    )

    def __init__(self, found: CommitMarks, *, place: int, end: int, by: str = "", away: bool = False) -> None:
        """`found`: what stood at `place`, where this worker begins. `end`: of the partition, at that time. `by`: who
        takes over; if it is who was at work, the log was away and nobody died. `away`: it was away for who takes over,
        so most likely for who was at work, too."""
        self.predecessor_died = found.working and not away and not (by and found.by == by)
        """The one before died."""
        self._by = by
        self.suspected_below = found.suspected_below
        """Records below are asked for by `suspicion` before they begin."""
        self._deaths = {offset: count for offset, count in found.deaths.items() if offset >= place}
        if self.predecessor_died:
            for offset in found.marked:
                self._deaths[offset] = self.death_count(offset) + 1
            self.suspected_below = max(self.suspected_below, min(found.claimed, end))
        self._marked: set[int] = set()
        self._ahead = CLAIM_MIN
        self._claimed_ms = 0.0
        self.claimed = place + CLAIM_MIN
        """Records below may begin, once a commit has said so."""
        self.claim_from = place + CLAIM_MIN // 2
        """Who begins a record from here on calls `claim` before."""
        self.version = 0
        """Rises when there is something new to say."""

    def death_count(self, offset: int) -> int:
        """Deaths at which this record may have been in flight."""
        return self._deaths.get(offset, 1 if offset < self.suspected_below else 0)

    @property
    def suspects(self) -> int:
        """How many records were in flight at two deaths or more."""
        return len(self._deaths)

    def claim(self, offset: int, now_ms: float) -> None:
        """This record is about to begin: claim more, long before it is needed. `now_ms`: of any steady clock."""
        quick = now_ms - self._claimed_ms < CLAIM_QUICK_MS
        self._ahead = min(self._ahead * 2, CLAIM_MAX) if quick else max(self._ahead // 2, CLAIM_MIN)
        self._claimed_ms = now_ms
        self.claimed = max(self.claimed, offset + 1 + self._ahead)
        self.claim_from = self.claimed - self._ahead // 2
        self.version += 1

    def mark(self, offset: int) -> None:
        """This record is about to begin; it may, once a commit has said so."""
        self._marked.add(offset)
        self.version += 1

    def clear(self, offset: int) -> None:
        """A marked record has run to its end, however it did: it has killed nobody."""
        self._deaths.pop(offset, None)
        self.unmark(offset)

    def condemn(self, offset: int) -> None:
        """A record has killed the process that it had to itself. Whoever comes before its answer is known does not
        begin it again."""
        self._deaths[offset] = APART_DEATHS_MAX
        self.version += 1

    def unmark(self, offset: int) -> None:
        """A marked record is not in work any more; what is known of it stands."""
        self._marked.discard(offset)
        self.version += 1

    def metadata(self, place: int, *, working: bool = True) -> str:
        """What a commit of `place` says. `working` False: the partition is handed over."""
        marks = CommitMarks(suspected_below=self.suspected_below, deaths=self._deaths)
        if working:
            marks = CommitMarks(
                True, self.claimed, self.suspected_below, frozenset(self._marked), self._deaths, self._by
            )
        return encode(marks, place)
