"""The state of a run, and the tables of states of runs and tasks.

A run is all that one correlation id caused, as far as it is still needed. Its first `requested` event opens it, and it
ends exactly once. Its state is the fold of `decide` over its events; only checkpoints store it. `decide` works on a
copy, so a Run that a caller holds does not change. All fields are values that are replaced, never changed in place;
`open` is the one exception.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from mesh.core.protocol.event import NO_USAGE, Usage
from mesh.core.run.lineage import Refusal

COMPLETED: Final = "completed"
PARTIAL: Final = "partial"
STOPPED: Final = "stopped"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

ENDINGS: Final[dict[str, str]] = {
    COMPLETED: "no task failed for good, every event was taken or ignored on purpose, nothing was refused, "
    "no join starved, the budget held",
    PARTIAL: "there is a result but a hop was refused or an event unrouted; or a join starved, or the run overspent",
    STOPPED: "a refusal or an unrouted event left no result, or the deadline passed",
    FAILED: "a task failed for good",
    CANCELLED: "a user cancelled it",
}

RUN_STATES: Final[tuple[tuple[str, str, str], ...]] = (
    ("(none)", "requested", "open"),
    ("(none)", "requested, nothing to do", COMPLETED),
    ("(none)", "requested, something refused but a result", PARTIAL),
    ("(none)", "requested, starved join", PARTIAL),
    ("(none)", "requested, refused", STOPPED),
    ("(none)", "requested, unrouted", STOPPED),
    ("open", "requested", "open"),
    ("open", "succeeded, more to do", "open"),
    ("open", "failed, attempts left", "open"),
    ("open", "failed for good, more to do", "open"),
    ("open", "failed, cut short by the deadline", "open"),
    ("open", "due (retry)", "open"),
    ("open", "due (deadline), early", "open"),
    ("open", "succeeded, nothing open", COMPLETED),
    ("open", "succeeded, nothing open, something refused but a result", PARTIAL),
    ("open", "succeeded, nothing open, starved join", PARTIAL),
    ("open", "succeeded, nothing open, something refused and no result", STOPPED),
    ("open", "succeeded, nothing open, something unrouted but a result", PARTIAL),
    ("open", "succeeded, nothing open, something unrouted and no result", STOPPED),
    ("open", "succeeded, nothing open, overspent", PARTIAL),
    ("open", "succeeded, nothing open, failed task", FAILED),
    ("open", "failed for good, nothing open", FAILED),
    ("open", "due (deadline)", STOPPED),
    ("open", "cancelled", CANCELLED),
    ("open", "failed for good, a fallback left", "open"),
    ("open", "failed, tried later", "open"),
    ("open", "redriven", "open"),
    ("open", "paused", "paused"),
    ("open", "failed for good, cascade", "paused"),
    ("paused", "requested", "paused"),
    ("paused", "succeeded, more to do", "paused"),
    ("paused", "failed, attempts left", "paused"),
    ("paused", "failed for good, more to do", "paused"),
    ("paused", "failed for good, a fallback left", "paused"),
    ("paused", "failed, tried later", "paused"),
    ("paused", "failed, cut short by the deadline", "paused"),
    ("paused", "due (retry)", "paused"),
    ("paused", "redriven", "paused"),
    ("paused", "succeeded, nothing open", COMPLETED),
    ("paused", "succeeded, nothing open, something refused but a result", PARTIAL),
    ("paused", "succeeded, nothing open, something refused and no result", STOPPED),
    ("paused", "succeeded, nothing open, something unrouted but a result", PARTIAL),
    ("paused", "succeeded, nothing open, something unrouted and no result", STOPPED),
    ("paused", "succeeded, nothing open, starved join", PARTIAL),
    ("paused", "succeeded, nothing open, overspent", PARTIAL),
    ("paused", "succeeded, nothing open, failed task", FAILED),
    ("paused", "failed for good, nothing open", FAILED),
    ("paused", "resumed", "open"),
    ("paused", "due (deadline), pause not over", "paused"),
    ("paused", "due (deadline), pause over", STOPPED),
    ("paused", "cancelled", CANCELLED),
    (FAILED, "redriven", "open"),
    (FAILED, "redriven, ended while it was paused", "paused"),
    (PARTIAL, "redriven", "open"),
    (STOPPED, "redriven", "open"),
    (CANCELLED, "redriven", "open"),
    (COMPLETED, "redriven, a refusal once more", "open"),
)
"""state, event, next state. docs/reference/states.md is generated from it; tests/core/run/test_state.py walks it."""

TASK_STATES: Final[tuple[tuple[str, str, str], ...]] = (
    ("(none)", "dispatched", "open"),
    ("open", "succeeded", "done"),
    ("open", "failed, attempts left", "waiting"),
    ("waiting", "due", "open"),
    ("open", "failed for good", "dead"),
    ("open", "failed for good, a fallback left", "replaced"),
    ("(none)", "dispatched, breaker open or run paused", "waiting"),
    ("waiting", "resumed", "open"),
    ("dead", "redriven, as a new task", "replaced"),
    ("open", "run ended", "dropped"),
    ("waiting", "run ended", "dropped"),
)
"""state, event, next state. `open` and `waiting` tasks are in `Run.open`; the others are forgotten."""


class Held(NamedTuple):
    """The input of a waiting task."""

    type: str
    content_type: str
    data: bytes
    due_ms: int
    """Log time of the next try; 0: when the run is resumed."""


class Past(NamedTuple):
    """Earlier failures of the same piece of work."""

    failed: tuple[str, ...] = ()
    """Agents that failed at this piece of work; this one stands in for the first."""
    errors: int = 0
    """Number of agents that failed in a row on the path, without a success between."""
    laters: int = 0
    """Number of times that the agent asked to be tried later."""
    time: str = ""
    """`time` of the first attempt of the task, for the next one."""


NO_PAST: Final = Past()


@dataclass(slots=True)
class Task:
    """One piece of work for one agent, open or waiting for its next attempt. Immutable, since it is shared."""

    id: str
    agent: str
    depth: int
    path: tuple[str, ...]
    branch: tuple[str, ...]
    """Fan-outs crossed: joins fire once per branch."""
    cause_id: str
    attempt: int = 1
    inputs: tuple[str, ...] = ()
    """Marks (`lineage.input_mark`) of every task on the path that lies on a cycle of the graph."""
    held: Held | None = None
    """Input to send again, while the task waits for its next attempt."""
    past: Past = NO_PAST


class Arrival(NamedTuple):
    """An input that a join has received."""

    data: bytes
    depth: int
    path: tuple[str, ...]
    inputs: tuple[str, ...]


class Slot(NamedTuple):
    """The inputs of a join in one branch: type → input. Kept after it fired, since branches below may need them."""

    inputs: dict[str, Arrival]
    fired: bool = False
    declined: bool = False
    """Whether the `when` of the join was false: for the complete inputs, or at the end for any missing ones."""


Branch = tuple[str, ...]
Slots = dict[Branch, Slot]


@dataclass(slots=True)
class Result:
    """A payload that left the mesh; part of the outcome."""

    id: str
    type: str
    agent: str
    data: bytes


class Failure(NamedTuple):
    """A task that failed for good."""

    agent: str
    task_id: str
    attempts: int
    code: str
    message: str
    path: tuple[str, ...]


class Draft(NamedTuple):
    """The last input of an agent on a loop that a limit refused: the state of the loop's work."""

    type: str
    agent: str
    letter: str
    """Id of the dead letter of the refusal, which holds the same input."""
    data: bytes
    omitted: bool = False
    """Whether only the dead letter holds the input, because of the state limit of the run."""


class Unrouted(NamedTuple):
    """An event without a receiver, or a repeated input of a join. `agent` emitted it; empty: the request."""

    type: str
    agent: str
    message: str
    times: int = 1
    closing: bool = False
    """Whether it was found when the run ended; a run that is opened again drops it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the entry of the outcome."""
        return {"type": self.type, "agent": self.agent, "message": self.message, "times": self.times}


class Trouble(NamedTuple):
    """Failures, redrives and pauses of a run."""

    dead: tuple[Task, ...] = ()
    """Tasks that failed for good: a redrive goes on from there."""
    redrives: tuple[str, ...] = ()
    """Ids of the redrives that took something back; a repeated one is dropped."""
    forgiven: int = 0
    """Not used: checkpoints of rules 1 have it. `dead_letter.redriven_refusals` finds the refusals taken back."""
    generation: int = 0
    """Number of times that the run was opened again."""
    paused: str = ""
    """Reason of the pause; empty: the run is not paused."""
    paused_ms: int = 0
    denied: tuple[str, ...] = ()
    """Ids of the redrives that were refused; a repeated one is dropped."""


NO_TROUBLE: Final = Trouble()


_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    """One empty mapping for all runs: most have neither joins nor loops, and there may be a million of them."""
    return _NOTHING


@dataclass(slots=True)
class Run:
    """State of a run. At most 1,000 bytes while one task is open, as a row half of it (bench/recovery.py)."""

    id: str
    type: str
    topology: str
    """Digest of the topology it was opened under."""
    opened_ms: int
    deadline_ms: int
    subject: str = ""
    traceparent: str = ""
    tracestate: str = ""
    ending: str = ""
    """Empty while it is open."""
    ended_ms: int = 0
    requests: tuple[str, ...] = ()
    """Id and payload fingerprint of each request, alternating; repeated ones are dropped. One tuple and not two:
    there may be a million runs."""
    open: dict[str, Task] = field(default_factory=dict)
    visits: Mapping[str, int] = field(default_factory=_nothing)
    """Tasks made for each agent that has a cap on visits."""
    joins: Mapping[str, Slots] = field(default_factory=_nothing)
    tasks: int = 0
    usd_micros: int = 0
    tokens: int = 0
    reserved_usd_micros: int = 0
    reserved_tokens: int = 0
    state_bytes: int = 0
    """Payload bytes held for joins, retries and the outcome."""
    results: tuple[Result, ...] = ()
    refused: int = 0
    """Number of refusals; `refusals` keeps the first `REFUSALS_KEPT_MAX`."""
    refusals: tuple[Refusal, ...] = ()
    failures: tuple[Failure, ...] = ()
    starved: tuple[str, ...] = ()
    trouble: Trouble = NO_TROUBLE
    unrouted: tuple[Unrouted, ...] = ()
    """Events without a receiver, and repeated inputs of joins (`core.run.unrouted`)."""
    beyond: Usage = NO_USAGE
    """Usage that attempts claimed beyond what they may spend; it is not charged."""
    drafts: tuple[Draft, ...] = ()
    """Last refused input of each agent on a loop."""
    overspent: tuple[str, ...] = ()
    """Sentences that name exceeded budgets; known when the run has ended."""
    extensions: tuple[str, ...] = ()
    """CloudEvents extensions of the event that opened the run; egress events carry them."""

    @property
    def roots(self) -> tuple[str, ...]:
        """Ids of the requests."""
        return self.requests[::2]

    @property
    def bodies(self) -> tuple[str, ...]:
        """Fingerprints of their payloads, in the same order."""
        return self.requests[1::2]

    def copy(self) -> "Run":
        """Return a copy that may be changed. Written out field by field, since one is made for every event."""
        new = object.__new__(Run)
        new.id = self.id
        new.type = self.type
        new.topology = self.topology
        new.opened_ms = self.opened_ms
        new.deadline_ms = self.deadline_ms
        new.subject = self.subject
        new.traceparent = self.traceparent
        new.tracestate = self.tracestate
        new.ending = self.ending
        new.ended_ms = self.ended_ms
        new.requests = self.requests
        new.open = self.open.copy()
        new.visits = self.visits
        new.joins = self.joins
        new.tasks = self.tasks
        new.usd_micros = self.usd_micros
        new.tokens = self.tokens
        new.reserved_usd_micros = self.reserved_usd_micros
        new.reserved_tokens = self.reserved_tokens
        new.state_bytes = self.state_bytes
        new.results = self.results
        new.refused = self.refused
        new.refusals = self.refusals
        new.failures = self.failures
        new.starved = self.starved
        new.trouble = self.trouble
        new.unrouted = self.unrouted
        new.beyond = self.beyond
        new.drafts = self.drafts
        new.overspent = self.overspent
        new.extensions = self.extensions
        return new


@dataclass(slots=True)
class Ended:
    """A finished run, as far as it is remembered."""

    ending: str
    requests: tuple[str, ...]
    """As in the run."""
    offset: int
    """Inbox offset of its end."""
    run: Run | None = None
    """The run itself if it has a failure or a refusal: a redrive may open it again."""
    at_ms: int = 0
    """Log time of its end; 0 where an earlier version wrote the checkpoint."""
