"""Effects: what `decide` wants done. Values; only a service performs them.

PublishTask   an event for one agent, on its task topic
PublishEvent  a domain event leaving the mesh, on its egress topic
Schedule      a `due` event is to enter the inbox at a time
DeadLetter    something failed for good: its bytes go to mesh.dead, explained
Finish        the run ended: its outcome goes to mesh.outcomes
Turn          a breaker was opened or closed: mesh.control says so to all
Adopt         a partition of the inbox took another topology for new runs: mesh.topologies says where
Note          nothing happens, and why: counted, so that no drop is silent
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesh.core.protocol.event import Event, derive
from mesh.core.protocol.record import Headers

if TYPE_CHECKING:
    from mesh.core.run.state import Run


@dataclass(slots=True)
class PublishTask:
    """`event.kind` is `task`; `key` orders tasks of this agent (bytes of the record key)."""

    event: Event
    key: bytes


@dataclass(slots=True)
class PublishEvent:
    """`topic` and `key` (None: the run id) come from the declaration of the egress topic."""

    event: Event
    topic: str
    key: bytes | None


@dataclass(slots=True)
class Schedule:
    """At `due_ms` (log time) a `due` event with id `timer_id` shall enter the inbox for this run and task."""

    run_id: str
    timer_id: str
    due_ms: int
    task_id: str = ""
    attempt: int = 0


@dataclass(slots=True)
class DeadLetter:
    """Original bytes with where they came from and why they are here. `id` is the same whenever decided again."""

    id: str
    code: str
    message: str
    value: bytes | None
    key: bytes | None
    headers: Headers
    origin: str
    run_id: str = ""
    agent: str = ""
    task_id: str = ""
    attempts: int = 1
    cls: str = ""
    stack: str = ""


@dataclass(slots=True)
class Finish:
    """The run as it ended; `cause_id` is the event that ended it."""

    run: "Run"
    cause_id: str
    at_ms: int

    @property
    def event_id(self) -> str:
        """Id of the outcome, the same however the run ends; another one each time that it was opened again."""
        generation = self.run.trouble.generation
        return derive(self.run.id, "outcome", generation) if generation else derive(self.run.id, "outcome")


@dataclass(slots=True)
class Note:
    """A drop, by reason code; `security` when somebody claimed what was not theirs."""

    code: str
    message: str
    run_id: str = ""
    security: bool = False


@dataclass(slots=True)
class Turn:
    """The breaker of an agent goes to a `state` of `control.STATES`; `run_id` and `cause_id` name the answer."""

    agent: str
    state: str
    why: str
    run_id: str
    cause_id: str
    at_ms: int


@dataclass(slots=True)
class Adopt:
    """After this offset runs of an inbox partition are opened under `topology` (a digest), up to it under `before`."""

    partition: int
    offset: int
    topology: str
    before: str


Effect = PublishTask | PublishEvent | Schedule | DeadLetter | Finish | Turn | Adopt | Note
