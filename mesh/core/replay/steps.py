"""Fold the records of one run into steps: each event with the state around it and what followed.

    steps = Steps(topology, run_id, partition=3, kept=registry)
    for record in records_of_the_run: step = steps.take(record)
    steps.gaps(), steps.steps

All records of a run lie in one partition of the inbox, so their order is that of the log. Each step names the step that
caused it. `run_changes` says what a step changed, `reasons` why each effect followed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from mesh.core.history.run_fold import RunFold
from mesh.core.protocol.codec import Unreadable
from mesh.core.protocol.event import CANCELLED, DUE, REDRIVEN, REQUESTED, Event, parse_json
from mesh.core.protocol.record import Record, coordinates
from mesh.core.run.circuit_breaker import Breakers
from mesh.core.run.effects import DeadLetter, Effect, Note, PublishTask
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Run
from mesh.core.state.partition_state import Partition
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.model import Topology

TRIMMED: Final = "trimmed"
DEAD_LETTER: Final = "dead letter"
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class Step:
    """One record of a run: the event, the run before and after it, and its effects."""

    number: int
    """From 1."""
    where: str
    """Coordinates of the record."""
    at_ms: int
    event: Event | None
    """None: the record is no event; `flaw` says why."""
    flaw: Unreadable | None
    before: Run | None
    after: Run | None
    effects: Sequence[Effect]
    topology: Topology | None
    """Topology that decided it; None if no run was known."""
    breakers: Breakers
    """Breakers after the event, as far as the records read show them."""
    cause: int | None = None
    """Number of the step that caused it."""

    @property
    def kind(self) -> str:
        """Kind of the event."""
        return UNREADABLE if self.event is None else self.event.kind

    @property
    def agent(self) -> str:
        """Agent that answered, or whose task or timer it is; "" for the run itself."""
        if self.event is None:
            return ""
        if self.event.agent or not self.event.task_id or self.before is None:
            return self.event.agent
        task = self.before.open.get(self.event.task_id)
        return "" if task is None else task.agent

    @property
    def refusals(self) -> Sequence[Refusal]:
        """Refusals that the run got by it; of a run that keeps no more, only those kept."""
        known = 0 if self.before is None else len(self.before.refusals)
        return () if self.after is None else self.after.refusals[known:]

    @property
    def codes(self) -> tuple[str, ...]:
        """Reason codes of the event and of what followed, in that order."""
        found = [] if self.event is None or self.event.fault is None else [self.event.fault.code]
        found += [] if self.flaw is None else [self.flaw.code]
        found += [refusal.code for refusal in self.refusals]
        found += [effect.code for effect in self.effects if isinstance(effect, DeadLetter | Note)]
        return tuple(dict.fromkeys(found))

    @property
    def is_refusal(self) -> bool:
        """Whether something was refused or given up."""
        return bool(self.refusals) or any(isinstance(effect, DeadLetter) for effect in self.effects)

    def fields(self) -> dict[str, Any]:
        """Return the fields that a condition may read, such as `agent == "pricing" and data.total > 100`."""
        event = self.event
        data = None if event is None else parse_json(event.data)
        return {
            "step": self.number,
            "where": self.where,
            "at_ms": self.at_ms,
            "kind": self.kind,
            "agent": self.agent,
            "asked": [effect.event.agent for effect in self.effects if isinstance(effect, PublishTask)],
            "type": "" if event is None else event.type,
            "id": "" if event is None else event.id,
            "task": "" if event is None else event.task_id,
            "code": self.codes[0] if self.codes else None,
            "codes": list(self.codes),
            "depth": 0 if event is None else event.depth,
            "attempt": 0 if event is None else event.attempt,
            "ending": "" if self.after is None else self.after.ending,
            "data": data,
        }


class Gap(NamedTuple):
    """A gap of a recording, or an intervention of an operator. `step`: its number, 0 for before the first."""

    kind: str
    step: int
    text: str


class Steps:
    """The steps of one run. Takes its records in order; those of other runs and of all runs move only breakers."""

    def __init__(self, topology: Topology, run_id: str, *, partition: int, kept: Registry | None = None) -> None:
        """`topology`: that of the mesh now. `kept`: contents of mesh.topologies."""
        self.steps: list[Step] = []
        self._fold = RunFold(topology, run_id, partition=partition, kept=kept)
        self._caused_by: dict[str, int] = {}
        """Id of an event, or of a task that it started → number of its step."""
        self._trimmed = ""
        self.offset = 0
        """First offset that may be taken."""

    def begin_with(self, state: Partition) -> None:
        """Begin with the run's state in a checkpoint, because retention removed its first records."""
        run, self.offset = self._fold.begin_with(state), state.offset
        text = f"the records before offset {state.offset} were removed; the state there is that of a checkpoint"
        ended = "" if run is not None else ", in which the run is not open"
        self._trimmed = f"{text}{ended}"

    def take(self, record: Record) -> Step | None:
        """Fold a record; None if it is not of this run."""
        decided = self._fold.take(record)
        if decided is None:
            return None
        number, where = len(self.steps) + 1, coordinates(record)
        if isinstance(decided, Unreadable):
            run = self._fold.run
            breakers, topology = self._fold.breakers, self._topology(run)
            step = Step(number, where, record.timestamp, None, decided, run, run, (), topology, breakers)
        else:
            event, before, after, effects = decided
            topology, breakers = self._topology(after or before), self._fold.breakers
            cause = self._cause_of(event)
            step = Step(number, where, event.at_ms, event, None, before, after, effects, topology, breakers, cause)
            self._remember(step, event)
        self.steps.append(step)
        return step

    def gaps(self) -> Iterator[Gap]:
        """Yield what the recording lacks and what operators did, in order."""
        if self._trimmed:
            yield Gap(TRIMMED, 0, self._trimmed)
        elif self.steps and self.steps[0].before is None and self.steps[0].kind not in (REQUESTED, UNREADABLE):
            text = "the first record is no request: the records before it were removed, and no checkpoint has the run"
            yield Gap(TRIMMED, 0, text)
        for step in self.steps:
            if step.flaw is not None:
                yield Gap(UNREADABLE, step.number, f"{step.flaw.code}: {step.flaw.message}")
            elif step.kind == CANCELLED:
                yield Gap(
                    CANCELLED, step.number, (step.event and step.event.subject) or "an operator cancelled the run"
                )
            elif step.kind == REDRIVEN and step.event is not None:
                yield Gap(REDRIVEN, step.number, f"an operator sent {step.event.id} again")
            for effect in step.effects:
                if isinstance(effect, DeadLetter):
                    yield Gap(
                        DEAD_LETTER, step.number, f"{effect.id[:12]} of {effect.agent or 'the request'}: {effect.code}"
                    )

    def _topology(self, run: Run | None) -> Topology | None:
        return None if run is None else self._fold.topology_of(run)

    def _cause_of(self, event: Event) -> int | None:
        """Return the step that caused an event: the one that started its task, else the one of its causing event."""
        names = (event.task_id and f"{event.task_id}:{event.attempt}", event.task_id, event.cause_id)
        if event.kind == DUE and not event.task_id:
            return 1 if self.steps else None
        return next((self._caused_by[name] for name in names if name in self._caused_by), None)

    def _remember(self, step: Step, event: Event) -> None:
        self._caused_by.setdefault(event.id, step.number)
        for effect in step.effects:
            if isinstance(effect, PublishTask):
                self._caused_by[effect.event.id] = step.number
        for task in () if step.after is None else step.after.open.values():
            if task.held is not None and (step.before is None or step.before.open.get(task.id) != task):
                self._caused_by[f"{task.id}:{task.attempt}"] = step.number
