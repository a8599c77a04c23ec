"""Effects: what `decide` wants done. They are values; a service performs them.

PublishTask         an event for one agent, on its task topic
PublishEvent        a domain event leaving the mesh, on its egress topic
Schedule            a `due` event is to enter the inbox at a given time
DeadLetter          something failed for good: its bytes go to mesh.dead with the reason
Finish              the run ended: its outcome goes to mesh.outcomes
BreakerTransition   a breaker opened or closed: mesh.control notifies all processes
Adopt               an inbox partition took another topology for new runs: mesh.topologies records the offset
Note                nothing is done, and why: notes are counted, so that no drop is silent
"""

from dataclasses import dataclass

from mesh.core.protocol.event import Event, derive_id
from mesh.core.protocol.record import Headers
from mesh.core.run.state import Run


@dataclass(slots=True, init=False)
class PublishTask:
    """`event.kind` is `task`; `key` orders tasks of this agent (bytes of the record key)."""

    event: Event
    key: bytes

    def __init__(self, event: Event, key: bytes) -> None:
        self.event = event
        self.key = key


@dataclass(slots=True, init=False)
class PublishEvent:
    """`topic` and `key` (None: the run id) come from the declaration of the egress topic."""

    event: Event
    topic: str
    key: bytes | None

    def __init__(self, event: Event, topic: str, key: bytes | None) -> None:
        self.event = event
        self.topic = topic
        self.key = key


@dataclass(slots=True, init=False)
class Schedule:
    """A `due` event with id `timer_id` that is to enter the inbox for this run and task at `due_ms` (log time)."""

    run_id: str
    timer_id: str
    due_ms: int
    task_id: str = ""
    attempt: int = 0

    def __init__(self, run_id: str, timer_id: str, due_ms: int, task_id: str = "", attempt: int = 0) -> None:
        self.run_id = run_id
        self.timer_id = timer_id
        self.due_ms = due_ms
        self.task_id = task_id
        self.attempt = attempt


@dataclass(slots=True)
class DeadLetter:
    """Original bytes, their origin, and why they are dead. `id` is the same each time the event is decided."""

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


@dataclass(slots=True, init=False)
class Finish:
    """The run as it ended; `cause_id` is the event that ended it."""

    run: Run
    cause_id: str
    at_ms: int

    def __init__(self, run: Run, cause_id: str, at_ms: int) -> None:
        self.run = run
        self.cause_id = cause_id
        self.at_ms = at_ms

    @property
    def event_id(self) -> str:
        """Id of the outcome: one for each generation of the run, whatever the ending."""
        generation = self.run.trouble.generation
        return derive_id(self.run.id, "outcome", generation) if generation else derive_id(self.run.id, "outcome")


@dataclass(slots=True)
class Note:
    """A drop, by reason code; `security`: a message claimed something that the run state contradicts."""

    code: str
    message: str
    run_id: str = ""
    security: bool = False


@dataclass(slots=True)
class BreakerTransition:
    """A change of an agent's breaker to a `state` of `control.STATES`; `run_id` and `cause_id` name the answer."""

    agent: str
    state: str
    why: str
    run_id: str
    cause_id: str
    at_ms: int


@dataclass(slots=True)
class Adopt:
    """A change of topology (digests): new runs of the partition use `topology` after `offset`, `before` up to it."""

    partition: int
    offset: int
    topology: str
    before: str


Effect = PublishTask | PublishEvent | Schedule | DeadLetter | Finish | BreakerTransition | Adopt | Note
