"""The entry of a run in an index: its places on inbox and outcomes, its ending, and the fields that select it.

An entry is folded from the records of the run in any parts, and parts are joined by `absorb`. It decides nothing: the
state of a run is the fold of its records, which the places find without reading the whole log.
"""

from dataclasses import dataclass, field
from typing import Final

from mesh.core.history.run_summary import Summary, outcome_of, summary_of_outcome
from mesh.core.protocol.codec import Unreadable
from mesh.core.protocol.event import FAILED, REQUESTED, SUCCEEDED, Event
from mesh.core.protocol.record import Record
from mesh.core.publishing.request_rejection import parse_late_request

GAP_MAX: Final = 1_000
"""Records of others between two of a run that are read with them. After more, another span begins."""
SPANS_MAX: Final = 64
"""Spans of a run; with more, the last one grows."""

Spans = list[tuple[int, int]]
"""First and last offset of parts of a partition, in order."""


@dataclass(slots=True)
class RunEntry:
    """A run, as far as its records were read."""

    run_id: str
    home: int = -1
    """Partition of its records on the inbox; -1: none was read."""
    inbox: Spans = field(default_factory=list)
    outcomes_home: int = -1
    outcomes: Spans = field(default_factory=list)
    type: str = ""
    subject: str = ""
    requests: tuple[str, ...] = ()
    """Ids of its requests."""
    opened_ms: int = 0
    agents: tuple[str, ...] = ()
    """Agents that answered, or failed for good."""
    ended: Summary | None = None
    """From its last outcome."""
    generation: int = -1
    late: str = ""
    """The ending that the answer to a late request names, where the outcome was removed."""

    def take(self, record: Record, event: Event | Unreadable) -> None:
        """Take a record of the inbox."""
        self.home = record.partition
        _add_span(self.inbox, record.offset, record.offset)
        if isinstance(event, Unreadable):
            return
        if event.kind == REQUESTED:
            if not self.requests:
                self.type, self.subject, self.opened_ms = event.type, event.subject, event.at_ms
            if event.id not in self.requests:
                self.requests = (*self.requests, event.id)
        elif event.kind in (SUCCEEDED, FAILED) and event.agent not in self.agents:
            self.agents = (*self.agents, event.agent)

    def take_outcome(self, record: Record, event: Event) -> bool:
        """Take a record of the outcomes; False if it says nothing of a run."""
        found = outcome_of(record, event)
        if found is None:
            late = parse_late_request(event)
            if late is None:
                return False
            self.late = late.ending
        else:
            body = found[1]
            generation = body.get("generation", 0)
            if isinstance(generation, int) and generation >= self.generation:
                self.generation, self.ended = generation, summary_of_outcome(*found)
                self.agents = _joined(self.agents, self.ended.agents)
        self.outcomes_home = record.partition
        _add_span(self.outcomes, record.offset, record.offset)
        return True

    def absorb(self, later: "RunEntry") -> None:
        """Join what was read later."""
        if later.home >= 0:
            self.home = later.home
        if later.outcomes_home >= 0:
            self.outcomes_home = later.outcomes_home
        for mine, others in ((self.inbox, later.inbox), (self.outcomes, later.outcomes)):
            for first, last in others:
                _add_span(mine, first, last)
        if not self.requests and later.requests:
            self.type, self.subject, self.opened_ms = later.type, later.subject, later.opened_ms
        self.requests, self.agents = _joined(self.requests, later.requests), _joined(self.agents, later.agents)
        if later.ended is not None and later.generation >= self.generation:
            self.generation, self.ended = later.generation, later.ended
        self.late = later.late or self.late


def _add_span(spans: Spans, first: int, last: int) -> None:
    """Add offsets to spans in order. Offsets within a span, or before the last one, change nothing."""
    if not spans:
        spans.append((first, last))
        return
    before, end = spans[-1]
    if last <= end:
        return
    if first - end <= GAP_MAX or len(spans) >= SPANS_MAX:
        spans[-1] = (before, last)
    else:
        spans.append((first, last))


def _joined(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return one if not other or one == other else tuple(dict.fromkeys((*one, *other)))
