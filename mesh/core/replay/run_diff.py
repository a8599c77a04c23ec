"""Compare a run with a repetition of it: the outcomes, and the answers of each agent. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mesh.core.protocol.event import Event
from mesh.core.replay.answer_diff import (
    NOTHING,
    SAME,
    VERDICTS,
    Ignored,
    answer_differences,
    outcome_differences,
    same_input,
    verdict_of,
)
from mesh.core.replay.masked_values import holds_masked
from mesh.core.verification.record_diff import Difference

GONE: Final = "gone"
NEW: Final = "new"
UNANSWERED: Final = "unanswered"
UNRECORDED: Final = "unrecorded"
"""Verdict on a task that the recording has no answer to, since its run is open there: it is not compared."""
TASK_VERDICTS: Final[dict[str, str]] = {
    GONE: "the repetition did not start this task",
    NEW: "only the repetition started this task",
    UNANSWERED: "the task got no answer in one of both runs",
}
"""Verdicts on a task besides those on its answer (`answer_diff.VERDICTS`)."""
INPUTS: Final[dict[str, str]] = {
    "same": "the same input",
    "masked": "an input that is masked in the recording",
    "other": "another input",
}


class TaskDiff(NamedTuple):
    """One task of both runs. `given_same`: its input was the same, so that the difference is the agent's own."""

    agent: str
    task_id: str
    verdict: str
    given_same: bool
    differences: Sequence[Difference]
    masked: int = 0
    """Places of the answer that were not compared, since their recorded values are masked."""
    masked_input: bool = False
    """Whether values of its recorded input may be masked, so that the repetition was not given the true ones."""

    @property
    def given(self) -> str:
        """What the input was beside the recorded one: `same`, `masked` or `other`."""
        return "masked" if self.masked_input else "same" if self.given_same else "other"


class RunDiff(NamedTuple):
    """The comparison of two runs. `tasks`: all, in the order in which they were started, the new ones last."""

    outcome: Sequence[Difference]
    tasks: Sequence[TaskDiff]
    is_open: bool = False
    """Whether the recorded run has not ended: only the answers that it has got are compared."""

    @property
    def same(self) -> bool:
        """Whether the repetition gave the same, as far as the recording goes."""
        return not self.outcome and not self.differing

    @property
    def compared(self) -> Sequence[TaskDiff]:
        """The tasks that both runs could be compared in."""
        return [task for task in self.tasks if task.verdict != UNRECORDED]

    @property
    def differing(self) -> Sequence[TaskDiff]:
        """The tasks that differ."""
        return [task for task in self.compared if task.verdict != SAME]

    @property
    def masked(self) -> int:
        """The number of places that were not compared, since their recorded values are masked."""
        return sum(task.masked for task in self.compared)

    @property
    def first_differences(self) -> Mapping[str, TaskDiff]:
        """Agent → its first task that differs."""
        found: dict[str, TaskDiff] = {}
        for task in self.differing:
            found.setdefault(task.agent, task)
        return found


class RunSide(NamedTuple):
    """One of both runs: its outcome, its tasks, and the last answer of each, by task id."""

    outcome: Mapping[str, Any] | None
    tasks: Mapping[str, Event]
    answers: Mapping[str, Event]
    masked: bool = False
    """Whether it comes from a recording in which values are masked."""


def run_diff(recorded: RunSide, new: RunSide, ignored: Ignored = NOTHING) -> RunDiff:
    """Compare two runs. Tasks are matched by their ids, which follow from the ids of requests, else by their agent: the
    id of a task that joins events depends on the last one.

    Of a recorded run that is open, the tasks that were answered are compared."""
    is_open = recorded.outcome is None
    outcome: list[Difference] = []
    if recorded.outcome is not None and new.outcome is not None:
        outcome = outcome_differences(recorded.outcome, new.outcome, ignored)
    elif recorded.outcome is not None:
        outcome = [Difference("outcome.ending", str(recorded.outcome.get("ending")), "not ended")]
    tasks = list(_tasks(recorded, new, ignored))
    if is_open:
        tasks = [task if task.task_id in recorded.answers else task._replace(verdict=UNRECORDED) for task in tasks]
    return RunDiff(outcome, tasks, is_open)


def _tasks(recorded: RunSide, new: RunSide, ignored: Ignored) -> Iterator[TaskDiff]:
    for id, other_id in _pairs(recorded.tasks, new.tasks):
        one, other = recorded.tasks.get(id), new.tasks.get(other_id)
        if one is None or other is None:
            known = one or other
            assert known is not None  # it is in one of both
            yield TaskDiff(known.agent, known.task_id, NEW if one is None else GONE, False, ())
            continue
        given_same, masked_input = same_input(one, other), recorded.masked and holds_masked(one.data)
        answer, again = recorded.answers.get(id), new.answers.get(other_id)
        if answer is None or again is None:
            verdict = SAME if answer is again else UNANSWERED
            yield TaskDiff(one.agent, id, verdict, given_same, (), 0, masked_input)
            continue
        masked: set[str] = set()
        differences = answer_differences(answer, again, ignored, masked)
        verdict = verdict_of(answer, again, differences, 0, 0)
        yield TaskDiff(one.agent, id, verdict, given_same, differences, len(masked), masked_input)


def _pairs(recorded: Mapping[str, Event], new: Mapping[str, Event]) -> Iterator[tuple[str, str]]:
    """Yield the ids of the same task in both runs; "" where one does not have it."""
    left: dict[str, list[str]] = {}
    for id, task in new.items():
        if id not in recorded:
            left.setdefault(task.agent, []).append(id)
    for id, task in recorded.items():
        others = left.get(task.agent, [])
        yield id, id if id in new else others.pop(0) if others else ""
    for others in left.values():
        yield from (("", id) for id in others)


def diff_lines(diff: RunDiff) -> Iterator[str]:
    """Yield the differences as lines of text: of the outcome, then the first one of each agent with all its fields."""
    if diff.outcome:
        yield "outcome"
        yield from map(_line, diff.outcome)
    for agent, task in diff.first_differences.items():
        about = TASK_VERDICTS.get(task.verdict) or f"{VERDICTS[task.verdict]} to {INPUTS[task.given]}"
        yield f"{agent}: {about} (task {task.task_id[:12]})"
        yield from map(_line, task.differences)


def _line(found: Difference) -> str:
    return f"  {found.place}: recorded {found.expected}, now {found.got}"
