"""Which task kills its process? Told from what the group's commits say, for one partition of one agent's tasks.

A worker writes with each commit that it is at *work* on the partition, and takes that back when it hands over. Who
takes a partition over that still says so knows that its worker died, and what may have been in flight then:

    first death    All that the dead one may have begun (`claimed`) is suspected once. It is done again at full speed;
                   each of these records is *marked* before it begins, many with one commit.
    second death   What was marked is suspected twice. These records are begun one at a time, *alone* in the whole
                   process, each marked before, and no longer suspected when they end.
    third death    What was marked and alone is not begun again: it is answered as a `crash_loop`, for good.

Who comes back to its own work, since the log was away for a while, has not died.

So a killer is begun three times, whoever dies with it goes on, and a single death makes nothing slower but by the
commits before the first records. Nothing is known of a partition whose metadata cannot be read: nothing is suspected.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

DEATHS_MAX: Final = 3
"""What was in flight at so many deaths, alone at the last, is not begun again."""
ALONE_FROM: Final = 2
CLAIM: Final = 4_096
"""How far ahead of what it has received a worker says it may begin. A commit says it, so rarely is better."""
MARKED_MAX: Final = 256
"""Records of a partition that are marked at once: the metadata of a commit holds 4,096 bytes."""
METADATA_BYTES_MAX: Final = 4_096
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Marks:
    """What the metadata of a commit says."""

    working: bool = False
    claimed: int = 0
    """Records below may have been begun."""
    careful: int = 0
    """Records below may have been in flight at a death."""
    marked: frozenset[int] = frozenset()
    """Begun with a mark, and not ended."""
    alone: bool = False
    """The one marked record has the process to itself."""
    deaths: Mapping[int, int] = field(default_factory=dict)
    """Record → deaths at which it was in flight, where these are two or more."""
    by: str = ""
    """Who is at work: the process, for as long as it lives."""


def encode(marks: Marks, place: int) -> str:
    """As metadata of a commit of `place`: at most 4,096 bytes. What is below `place` is left out."""
    marked = sorted(offset - place for offset in marks.marked if offset >= place)
    deaths = sorted((-count, offset - place) for offset, count in marks.deaths.items() if offset >= place)
    while True:
        body: dict[str, Any] = {"v": _VERSION}
        if marks.working:
            body |= {"working": True, "claimed": marks.claimed}
        if marks.by:
            body["by"] = marks.by
        if marks.careful > place:
            body["careful"] = marks.careful
        if marked:
            body["marked"] = marked
        if marks.alone:
            body["alone"] = True
        if deaths:
            body["deaths"] = [[offset, -count] for count, offset in deaths]
        text = orjson.dumps(body).decode()
        if len(text) <= METADATA_BYTES_MAX or not (marked or deaths):
            return text
        # Less suspicion is the safe side: a killer is begun once more, and nobody else is blamed.
        marked, deaths = (marked, deaths[: len(deaths) // 2]) if deaths else (marked[: len(marked) // 2], deaths)


def decode(text: str, place: int) -> Marks:
    """The marks in the metadata of a commit of `place`. Total: what is not ours says nothing."""
    try:
        body = orjson.loads(text)
        if not isinstance(body, dict) or body.get("v") != _VERSION:
            return Marks()
        return Marks(
            body.get("working") is True,
            int(body.get("claimed", 0)),
            int(body.get("careful", 0)),
            frozenset(int(offset) + place for offset in body.get("marked", ())),
            body.get("alone") is True,
            {int(offset) + place: int(count) for offset, count in body.get("deaths", ())},
            str(body.get("by", "")),
        )
    except (orjson.JSONDecodeError, TypeError, ValueError):
        return Marks()


class Watch:
    """What one worker knows and says about one partition while it has it. Offsets rise; nothing here waits."""

    __slots__ = ("_alone", "_by", "_deaths", "_marked", "careful", "claimed", "died", "version")

    def __init__(self, found: Marks, *, place: int, end: int, by: str = "") -> None:
        """`found`: what stood at `place`, where this worker begins. `end`: of the partition, at that time. `by`: who
        takes over; if it is who was at work, the log was away and nobody died."""
        self.died = found.working and not (by and found.by == by)
        """The one before died."""
        self._by = by
        self.careful = found.careful
        """Records below are asked for by `suspicion` before they begin."""
        self._deaths = {offset: count for offset, count in found.deaths.items() if offset >= place}
        if self.died:
            for offset in found.marked:
                self._deaths[offset] = self.suspicion(offset) + 1
            if not found.alone:
                self.careful = max(self.careful, min(found.claimed, end))
        self._marked: set[int] = set()
        self._alone = False
        self.claimed = place + CLAIM
        """Records below may begin, once a commit has said so."""
        self.version = 0
        """Rises when there is something new to say."""

    def suspicion(self, offset: int) -> int:
        """Deaths at which this record may have been in flight."""
        return self._deaths.get(offset, 1 if offset < self.careful else 0)

    @property
    def suspected(self) -> int:
        """How many records were in flight at two deaths or more."""
        return len(self._deaths)

    def claim(self, next_offset: int) -> None:
        """Claim more when what was received comes near to the end of it, long before it is needed."""
        if next_offset >= self.claimed - CLAIM // 2:
            self.claimed = next_offset + CLAIM
            self.version += 1

    def mark(self, offset: int, *, alone: bool = False) -> None:
        """This record is about to begin; it may, once a commit has said so."""
        self._marked.add(offset)
        self._alone = alone
        self.version += 1

    def ended(self, offset: int) -> None:
        """A marked record has run to its end, however it did: it has killed nobody."""
        self._deaths.pop(offset, None)
        self.unmark(offset)

    def unmark(self, offset: int) -> None:
        """A marked record is not in work any more; what is known of it stands."""
        self._marked.discard(offset)
        self._alone = False
        self.version += 1

    def metadata(self, place: int, *, working: bool = True) -> str:
        """What a commit of `place` says. `working` False: the partition is handed over."""
        marks = Marks(careful=self.careful, deaths=self._deaths)
        if working:
            marks = Marks(
                True, self.claimed, self.careful, frozenset(self._marked), self._alone, self._deaths, self._by
            )
        return encode(marks, place)
