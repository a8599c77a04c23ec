"""Tasks of a run for display: each attempt, with its waiting and working time."""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mesh.core.protocol.event import NO_USAGE, Event, Fault, Part, Usage
from mesh.core.run.state import Task

WORKING: Final = "working"
WAITING: Final = "waiting"
DONE: Final = "done"
DEAD: Final = "dead"
DROPPED: Final = "dropped"
REPLACED: Final = "replaced"
"""State of a failed task that a fallback agent or a redrive replaced."""


class Moment(NamedTuple):
    """One line of a timeline. `kind` is one of MOMENTS."""

    at_ms: int
    kind: str
    agent: str
    text: str
    task_id: str = ""


MOMENTS: Final[dict[str, str]] = {
    "requested": "a request for the run came",
    "dispatched": "a task was handed to an agent",
    "succeeded": "an agent answered; the text lists what it emitted",
    "failed": "an agent could not",
    "retry": "it will be tried again",
    "dead": "it was given up: its input is a dead letter",
    "refused": "a limit, a rule or a cycle stopped a hop",
    "unrouted": "nothing took an event",
    "left": "an event left the mesh",
    "noted": "something came that changed nothing, or that was claimed falsely",
    "dropped": "a record that is no event",
    "cancelled": "the run was cancelled",
    "paused": "the run waits; the text says why",
    "resumed": "it goes on",
    "redriven": "what had failed was sent again",
    "ended": "the run ended; the text is the ending",
}


class TaskAttempt(NamedTuple):
    """One attempt of a task. `fault` None and `ended_ms` set: it succeeded. `waited_ms`: time on the topic before the
    function was called, if the worker reported it."""

    number: int
    began_ms: int
    ended_ms: int | None = None
    fault: Fault | None = None
    waited_ms: int = 0


@dataclass(slots=True)
class TaskHistory:
    """One task. `parent`: id of the task whose answer caused it, "" for the request. Times are log time."""

    id: str
    agent: str
    type: str
    depth: int
    path: tuple[str, ...]
    parent: str
    cause_id: str
    began_ms: int
    state: str = WORKING
    ended_ms: int | None = None
    attempts: list[TaskAttempt] = field(default_factory=list)
    emitted: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    """Emitted events with payloads; empty if the history does not keep them."""
    usd_micros: int = 0
    tokens: int = 0

    @property
    def took_ms(self) -> int | None:
        """Time from its first dispatch to its last answer, waits between attempts included."""
        return None if self.ended_ms is None else self.ended_ms - self.began_ms

    @property
    def worked_ms(self) -> int | None:
        """Time that its function ran, in all attempts; None while none has ended."""
        ended = [a for a in self.attempts if a.ended_ms is not None]
        if self.ended_ms is None or not ended:
            return None
        return sum(max(0, (a.ended_ms or 0) - a.began_ms - a.waited_ms) for a in ended)

    @property
    def waited_ms(self) -> int:
        """Time that it lay on its topic and waited between attempts."""
        return max(0, (self.took_ms or 0) - (self.worked_ms or 0))


def task_history_of(task: Task, began_ms: int) -> TaskHistory:
    """Return the history of an open task in a checkpoint; `began_ms` replaces its unknown beginning."""
    type, state = ("", WORKING) if task.held is None else (task.held.type, WAITING)
    return TaskHistory(task.id, task.agent, type, task.depth, task.path, "", task.cause_id, began_ms, state)


class UnchargedUsage:
    """Usage in answers that came too late to be charged: after the run's end, or for an older attempt."""

    def __init__(self) -> None:
        self.total = NO_USAGE
        self._answers: set[tuple[str, int]] = set()
        """Tasks and attempts that answered already, because an answer may be repeated."""

    def take(self, event: Event, *, charged: bool) -> None:
        """Count the answer to a task of the run."""
        answer = (event.task_id, event.attempt)
        if answer in self._answers:
            return
        self._answers.add(answer)
        if not charged and event.usage is not None:
            total, more = self.total, event.usage
            self.total = Usage(total.usd_micros + more.usd_micros, total.tokens + more.tokens)
