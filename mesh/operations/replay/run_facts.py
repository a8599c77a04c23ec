"""The facts of a run, taken from its steps: requests, tasks, answers and outcome."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mesh.adapters.ports import ReadLog
from mesh.core.protocol.event import CANCELLED, FAILED, PAUSED, REDRIVEN, REQUESTED, SUCCEEDED, Event, rfc3339
from mesh.core.replay.steps import Gap
from mesh.core.run.effects import PublishTask
from mesh.core.topology.model import Topology
from mesh.operations.replay.run_replay import RunReplay, replay_run
from mesh.operations.runs import Runs

BY_HAND = {CANCELLED: "it was cancelled", PAUSED: "it was paused", REDRIVEN: "a dead letter of it was sent again"}
"""Kinds of events that operators caused → what they did. A replay does not repeat them."""


class RunFacts(NamedTuple):
    """A run as far as it can be compared with a repetition of it."""

    run_id: str
    requests: Sequence[Event]
    tasks: Mapping[str, Event]
    """Task id → its first attempt, in the order in which they were started."""
    answers: Mapping[str, Event]
    """Id of an attempt → its answer, in order."""
    last_answers: Mapping[str, Event]
    """Task id → the answer of its last attempt."""
    outcome: Mapping[str, Any] | None
    """Body of the outcome; None: the run is open in the recording."""
    gaps: Sequence[Gap]
    by_hand: Sequence[str]
    """Interventions of operators."""

    @property
    def writers(self) -> frozenset[str]:
        """The names under which its tasks wrote on the board."""
        return frozenset(f"{task.agent}/{id}" for id, task in self.tasks.items())

    @property
    def times(self) -> Mapping[str, str]:
        """Task id → its time (`Context.now_ms`)."""
        return {id: task.time or rfc3339(task.at_ms) for id, task in self.tasks.items()}


async def read_run_facts(log: ReadLog, topology: Topology, name: str, *, runs: Runs | None = None) -> RunFacts:
    """Read the run called `name` as `replay_run` does. Raises as that, and NotFound without the run's request."""
    return facts_of(await replay_run(log, topology, name, runs=runs))


def facts_of(replay: RunReplay) -> RunFacts:
    """Return the facts in the steps of a run. Raises NotFound without its request."""
    replay.require_request()
    events = [step.event for step in replay.steps if step.event is not None]
    tasks: dict[str, Event] = {}
    for step in replay.steps:
        for effect in step.effects:
            if isinstance(effect, PublishTask):
                tasks.setdefault(effect.event.task_id, effect.event)
    answered = [event for event in events if event.kind in (SUCCEEDED, FAILED)]
    return RunFacts(
        run_id=replay.history.run_id,
        requests=[event for event in events if event.kind == REQUESTED],
        tasks=tasks,
        answers=_first_answers(answered),
        last_answers={event.task_id: event for event in answered},
        outcome=replay.outcome,
        gaps=replay.gaps,
        by_hand=[BY_HAND[event.kind] for event in events if event.kind in BY_HAND],
    )


def _first_answers(answered: Sequence[Event]) -> Mapping[str, Event]:
    """Return the answer of each attempt, in order. A repeated one had no effect."""
    found: dict[str, Event] = {}
    for event in answered:
        found.setdefault(event.cause_id, event)
    return found
