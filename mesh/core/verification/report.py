"""Invariants, violations and the report of a check of the log."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mesh.core.protocol.record import NewRecord

INVARIANTS: Final[dict[str, str]] = {
    "I1": "every acknowledged submission is on the log, and its run ended or its refusal is explained",
    "I2": "a run ends once; each ending on mesh.outcomes follows from the inbox",
    "I3": "copies are equal byte for byte, and one answer counts for each attempt",
    "I4": "depth and path of a task follow from those of a task of its run, within the limit",
    "I5": "what is used and reserved stays within the budget; the outcome says what was charged",
    "I6": "deciding the inbox again gives what was published, byte for byte, and nothing else was published",
    "I7": "committed offsets do not go back, and pass nothing whose effects or answer are missing",
    "I8": "a dead letter has a known reason, and the bytes of the record it points at; one for each",
    "I9": "what a run published on a partition lies there in the order of its decisions",
    "I10": "versions on the board form one chain in each incarnation (`audit.chain`, from its history)",
    "I11": "at rest no run is open and nothing is left to read",
    "I13": "the checkpoint that stands holds what the records before it give",
    "I14": "a submission that was answered as refused did not happen",
    "I15": "a redrive takes back the refusal that its dead letter names, once; the outcome counts those that stand",
    "I16": "a run ends as its facts say, and every event that nothing took is one of them",
    "I17": "an outcome names a budget exactly where more was used than the run might",
    "I18": "a join that is named as starved may still be wanted",
    "I19": "the last input of each agent on a loop that a limit refused is in the outcome, until it is redriven",
    "I20": "an input of a join is kept for it or named as unrouted; at the end it was used, or its join is named",
}
"""Invariant → its meaning. Tests check I1, I10, I11 and I14 (`tests.log_check`); records do not show I12, leaks."""
VIOLATIONS_KEPT: Final = 100


class Violation(NamedTuple):
    """A violated invariant. `where`: coordinates, or another name to look up."""

    invariant: str
    where: str
    what: str
    expected: str = ""
    got: str = ""
    run_id: str = ""
    record: NewRecord | None = None
    """The record that should have been published, if one is missing or differs."""
    published: str = ""
    """Coordinates of the record published instead."""

    def __str__(self) -> str:
        text = f"{self.invariant} {self.where}: {self.what}"
        if self.expected:
            text += f"; expected {self.expected}"
        return f"{text}; got {self.got}" if self.got else text


class Observer:
    """Receives what a check sees of requests, and ignores it. The submission ledger of the tests derives from it."""

    def see_request(self, run_id: str, event_id: str, origin: str) -> None:
        """A request lies on the inbox; `origin`: its coordinates on an ingress topic."""

    def see_ending(self, run_id: str) -> None:
        """The outcome of a run lies on mesh.outcomes, as far as can be checked."""

    def see_refusal(self, run_id: str, event_id: str, origin: str) -> None:
        """A request was answered by a dead letter or a rejection."""


@dataclass(slots=True)
class VerificationReport:
    """Violations found, and counts of the things checked."""

    violations: list[Violation] = field(default_factory=list)
    found: Counter[str] = field(default_factory=Counter)
    """Violations by invariant, including those not kept."""
    checked: Counter[str] = field(default_factory=Counter)
    """Things checked, by invariant."""
    unchecked: Counter[str] = field(default_factory=Counter)
    """Things that could not be checked, by reason."""
    records: Counter[str] = field(default_factory=Counter)
    """Records read, by topic."""
    endings: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    open: int = 0
    """Runs without an end."""
    copies: int = 0
    """Repeated published records, equal byte for byte."""

    def add(self, violation: Violation) -> None:
        """Count a violation; keep it if it is among the first, or the first of its invariant."""
        first = not self.found[violation.invariant]
        self.found[violation.invariant] += 1
        if first or len(self.violations) < VIOLATIONS_KEPT:
            self.violations.append(violation)

    @property
    def good(self) -> bool:
        """Whether no violation was found."""
        return not self.found
