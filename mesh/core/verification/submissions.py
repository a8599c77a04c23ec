"""The ledger of a submitter against what the log tells: nothing acknowledged is lost, nothing refused came true.

A submission is *heard* when its request lies on the inbox, *ended* when the outcome of its run lies on mesh.outcomes,
*explained* when the request itself is a dead letter or was answered as rejected.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from mesh.core.verification.report import ACKNOWLEDGED, REFUSED, Submission, Violation


@dataclass(slots=True)
class RunSubmissions:
    """One run of the ledger."""

    asked: list[Submission] = field(default_factory=list)
    heard: set[str] = field(default_factory=set)
    """Ids and places of its requests on the inbox."""
    ended: bool = False
    explained: set[str] = field(default_factory=set)
    """Ids and places of requests that were answered by a dead letter or a rejection; "" stands for any."""


class SubmissionLedger:
    """What was asked, by run id and by place."""

    def __init__(self) -> None:
        self._claims: dict[str, RunSubmissions] = {}
        self._places: dict[str, RunSubmissions] = {}

    def __len__(self) -> int:
        return sum(len(claim.asked) for claim in self._claims.values())

    def asked(self, entry: Submission) -> None:
        """Take one line."""
        claim = self._claims.setdefault(entry.run_id or entry.place, RunSubmissions())
        claim.asked.append(entry)
        if entry.place:
            self._places[entry.place] = claim

    def heard(self, run_id: str, event_id: str, place: str) -> None:
        """A request lies on the inbox; `place`: where it lay on its ingress topic."""
        claim = self._places.get(place)
        if claim is not None and run_id not in self._claims:
            self._claims[run_id] = claim  # it was submitted without naming its run
        claim = self._claims.get(run_id)
        if claim is not None:
            claim.heard |= {event_id, place}

    def ended(self, run_id: str) -> None:
        """The outcome of a run lies on mesh.outcomes."""
        claim = self._claims.get(run_id)
        if claim is not None:
            claim.ended = True

    def explained(self, run_id: str, event_id: str, place: str) -> None:
        """A request was refused, and that was said."""
        for claim in (self._claims.get(run_id), self._places.get(place)):
            if claim is not None:
                claim.explained |= {event_id, place} - {""} if event_id or place else {""}

    def judge(self, under_way: Callable[[str], bool]) -> Iterator[Violation]:
        """What of the ledger is not true. `under_way`: whether a run may still end, or cannot be judged."""
        judged: set[int] = set()
        for run_id, claim in self._claims.items():
            if id(claim) in judged:
                continue
            judged.add(id(claim))
            for entry in claim.asked:
                yield from self._judge(entry, claim, run_id, under_way)

    def _judge(
        self, entry: Submission, claim: RunSubmissions, run_id: str, under_way: Callable[[str], bool]
    ) -> Iterator[Violation]:
        names = {entry.event_id, entry.place} - {""}
        heard = bool(names & claim.heard if names else claim.heard)
        explained = "" in claim.explained or bool(names & claim.explained if names else claim.explained)
        where = entry.place or f"run {entry.run_id}"
        if entry.answer == REFUSED and heard:
            what = f"submission {entry.event_id!r} was answered as refused, and is on the inbox"
            yield Violation("I14", where, what, run_id=entry.run_id)
        if entry.answer != ACKNOWLEDGED or explained or claim.ended or under_way(run_id):
            return
        what = f"submission {entry.event_id!r} was acknowledged"
        got = "its run has no ending" if heard else "it is not on the inbox"
        yield Violation("I1", where, what, "an ending, or a refusal that is explained", got, entry.run_id)
