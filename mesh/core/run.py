"""The Run: all that one correlation id caused, as far as it is still needed. And the tables of its states.

A run is opened by its first `requested` event and ends exactly once. Its state is the fold of `decide` over its
events; nothing of it is stored elsewhere but in checkpoints. `decide` works on a copy, so a Run that somebody holds
does not change under them. Tasks, joins and results are values and shared between copies.
"""

from typing import Final, NamedTuple

from mesh.core.lineage import Refusal

COMPLETED: Final = "completed"
PARTIAL: Final = "partial"
STOPPED: Final = "stopped"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

ENDINGS: Final[dict[str, str]] = {
    COMPLETED: "every task succeeded, nothing was refused, no join starved",
    PARTIAL: "some results are there, but a hop was refused or a join starved",
    STOPPED: "a limit ended it: a refusal left no result, or the deadline passed",
    FAILED: "a task failed for good",
    CANCELLED: "somebody cancelled it",
}

RUN_STATES: Final[tuple[tuple[str, str, str], ...]] = (
    ("(none)", "requested", "open"),
    ("open", "succeeded, more to do", "open"),
    ("open", "failed, attempts left", "open"),
    ("open", "due (retry)", "open"),
    ("open", "succeeded, nothing open", COMPLETED),
    ("open", "succeeded, nothing open, refused hop or starved join", PARTIAL),
    ("open", "refused hop, no result", STOPPED),
    ("open", "due (deadline)", STOPPED),
    ("open", "failed for good, nothing open", FAILED),
    ("open", "cancelled", CANCELLED),
)
"""state, event, next state. docs/states.md is generated from it; tests/core/test_run.py walks it."""

TASK_STATES: Final[tuple[tuple[str, str, str], ...]] = (
    ("(none)", "dispatched", "open"),
    ("open", "succeeded", "done"),
    ("open", "failed, attempts left", "waiting"),
    ("waiting", "due", "open"),
    ("open", "failed for good", "dead"),
    ("open", "run ended", "dropped"),
    ("waiting", "run ended", "dropped"),
)


class Task(NamedTuple):
    """One piece of work for one agent, open or waiting for its next attempt."""

    id: str
    agent: str
    depth: int
    path: tuple[str, ...]
    branch: tuple[str, ...]
    """Fan-outs crossed: joins fire once per branch."""
    cause_id: str
    attempt: int = 1
    inputs: tuple[str, ...] = ()
    """`agent:fingerprint` of every task on the path, kept only where the graph has cycles."""
    held: "Held | None" = None
    """While waiting for the next attempt: what to send again."""


class Held(NamedTuple):
    """The input of a waiting task."""

    type: str
    content_type: str
    data: bytes
    due_ms: int


class Arrival(NamedTuple):
    """One input of a join that has come."""

    data: bytes
    depth: int
    path: tuple[str, ...]
    inputs: tuple[str, ...]


class Result(NamedTuple):
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


Branch = tuple[str, ...]
FIRED: Final = None
"""In place of a join's arrivals: it has fired in that branch and does so only once."""


class Run:
    """State of a run. Sizes: about 700 bytes while one task is open (measured in bench/)."""

    __slots__ = (
        "body",
        "deadline_ms",
        "ended_ms",
        "ending",
        "failures",
        "id",
        "joins",
        "open",
        "opened_ms",
        "refusals",
        "reserved_tokens",
        "reserved_usd_micros",
        "results",
        "roots",
        "starved",
        "state_bytes",
        "subject",
        "tasks",
        "tokens",
        "topology",
        "traceparent",
        "tracestate",
        "type",
        "usd_micros",
        "visits",
    )

    def __init__(self, id: str, *, type: str, topology: str, opened_ms: int, deadline_ms: int) -> None:
        self.id = id
        self.type = type
        self.topology = topology
        self.opened_ms = opened_ms
        self.deadline_ms = deadline_ms
        self.ended_ms = 0
        self.ending = ""
        self.subject = ""
        self.body = ""
        """Fingerprint of the first request's payload."""
        self.traceparent = ""
        self.tracestate = ""
        self.roots: tuple[str, ...] = ()
        """Ids of the requests heard; a repeated one is dropped."""
        self.open: dict[str, Task] = {}
        self.visits: dict[str, int] = {}
        self.joins: dict[str, dict[Branch, dict[str, Arrival] | None]] = {}
        """Agent → branch → type → what has come; FIRED where it fired."""
        self.tasks = 0
        self.usd_micros = 0
        self.tokens = 0
        self.reserved_usd_micros = 0
        self.reserved_tokens = 0
        self.state_bytes = 0
        """Payload bytes held for joins, retries and the outcome."""
        self.results: tuple[Result, ...] = ()
        self.refusals: tuple[Refusal, ...] = ()
        self.failures: tuple[Failure, ...] = ()
        self.starved: tuple[str, ...] = ()

    def copy(self) -> "Run":
        """A run that can be worked on without changing this one."""
        new = Run.__new__(Run)
        for name in Run.__slots__:
            setattr(new, name, getattr(self, name))
        new.open = self.open.copy()
        new.visits = self.visits.copy()
        if self.joins:
            new.joins = {
                agent: {branch: (FIRED if got is FIRED else got.copy()) for branch, got in branches.items()}
                for agent, branches in self.joins.items()
            }
        return new
