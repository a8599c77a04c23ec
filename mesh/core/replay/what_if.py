"""Decide recorded events again under another topology, with the recorded answers of the agents.

    what_if = WhatIf(Variants(topology, kept, variant), number=3, done=results.append)
    for record in inbox_of_the_partition: what_if.take(record)
    what_if.take_outcome(run_id, body)   # each outcome when the inbox was read up to its time
    what_if.finish()

The rules are those of `Partition`. Requests and what operators did come as recorded. An answer comes as recorded if its
task is made here, too; it waits if the task is made later. A task without a recorded answer stays open: a run that
waits for one is *unknown from here*. No answer is invented.

A timer fires as recorded. If deadlines, retries or breakers differ, it fires at its time, before the next event of
its run. A run is closed when it ended in both; of runs that ended only as recorded, the last `OVERDUE_MAX` are kept, in
case an answer came late. So the memory depends on the runs that are open at a time, not on their number.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mesh.core.history.run_fold import Decided
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import ADOPTED, DUE, FAILED, REDRIVEN, REQUESTED, SUCCEEDED, Event
from mesh.core.protocol.record import Record
from mesh.core.replay.endings import UNKNOWN, Ending, RunWhatIf, ending_of_outcome, ending_of_run
from mesh.core.replay.recorded_tasks import TaskMatches, same_routes
from mesh.core.run.effects import Effect, Finish, PublishTask, Schedule
from mesh.core.run.state import Run
from mesh.core.state.partition_state import Partition
from mesh.core.state.topology_registry import Registry, step
from mesh.core.topology.model import Topology

OVERDUE_MAX: Final = 10_000
"""Runs kept that ended as recorded and wait here."""
UNPAIRED_MAX: Final = 100_000
"""Endings kept whose recorded outcome has not come."""
_OF_TASKS: Final = frozenset({SUCCEEDED, FAILED, DUE})


class Variants:
    """Each known topology, and the one that takes its place."""

    def __init__(self, topology: Topology, kept: Registry, variant: Callable[[Topology], Topology]) -> None:
        """`topology`: that of the mesh now. `kept`: contents of mesh.topologies."""
        self.topology, self.kept = topology, kept
        self.recorded = {**kept.topologies, topology.digest: topology}
        self.others = {digest: variant(one) for digest, one in self.recorded.items()}
        pairs = [(one, self.others[digest]) for digest, one in self.recorded.items()]
        self.same_routes = all(same_routes(one, other) for one, other in pairs)
        self.deadlines_moved = any(_deadlines(one) != _deadlines(other) for one, other in pairs)
        self.retries_moved = any(_retries(one) != _retries(other) for one, other in pairs)

    def first(self, number: int, offset: int) -> Topology:
        """Return the recorded topology under which a request at this offset opens a run."""
        return self.kept.topology_at(number, offset) or self.topology


def _deadlines(topology: Topology) -> object:
    return topology.limits.deadline_ms, topology.limits.pause_ms


def _retries(topology: Topology) -> object:
    return {name: (spec.retry, spec.breaker) for name, spec in topology.agents.items()}


@dataclass(slots=True)
class _Waiting:
    """The waiting tasks of one run. Most runs have none."""

    answers: dict[tuple[str, int, bool], Event] = field(default_factory=dict)
    """Recorded task, attempt and whether it is a timer → its event, whose task is not open here (yet)."""
    timers: dict[str, Schedule] = field(default_factory=dict)
    """Timers of tasks, by id."""
    matches: TaskMatches | None = None
    """Matches of its tasks, where equal ids do not tell."""


class WhatIf:
    """The what-if of one inbox partition. See the module."""

    def __init__(
        self,
        variants: Variants,
        *,
        number: int,
        first_offset: int = 0,
        exact: bool = False,
        until_ms: int | None = None,
        done: Callable[[RunWhatIf], None] = lambda found: None,
        decided: Callable[[Decided], None] | None = None,
    ) -> None:
        """`exact`: match every task, so that `matches_of` tells which are the same. `until_ms`: later requests are left
        out. `done` gets each run once it is known; `decided` what each event decided here, and keeps the matches."""
        self._variants = variants
        self._exact = exact or not variants.same_routes
        self.until_ms = until_ms
        self._done, self._decided = done, decided
        topology = variants.topology
        first = variants.first(number, first_offset)
        partitions = topology.inbox_partitions
        pinned = {**variants.others, **{other.digest: other for other in variants.others.values()}}
        other = variants.others[first.digest]
        self.state = Partition(other, number=number, partitions=partitions, pinned=pinned)
        self._recorded: Partition | None = None
        if self._exact:
            self._recorded = Partition(first, number=number, partitions=partitions, pinned=variants.recorded)
        for state in (self.state, self._recorded):
            if state is not None:
                state.kept_ms.update(variants.kept.since_ms)
        self._waiting: dict[str, _Waiting] = {}
        self._endings: dict[tuple[str, int], Ending] = {}
        """Run and generation → its ending here, whose recorded outcome has not come."""
        self._overdue: dict[str, Ending] = {}
        """Runs that are open here → how they ended as recorded."""
        self._ready: deque[Event] = deque()
        self.outside = 0
        """Recorded outcomes without an ending here."""
        self.at_ms = 0

    @property
    def idle(self) -> bool:
        """Whether no run is open here or waits for its recorded outcome."""
        return not self.state.runs.warm and not self._endings

    def matches_of(self, run_id: str) -> TaskMatches | None:
        """Return the matches of a run that is not closed; None if equal ids tell."""
        waiting = self._waiting.get(run_id)
        return None if waiting is None else waiting.matches

    # ------------------------------------------------------------------------------------------------------- taking

    def take(self, record: Record) -> None:
        """Take a record of the inbox partition, in order."""
        event = read_event(record)
        if isinstance(event, Unreadable):
            return
        self.at_ms = event.at_ms
        recorded = self._take_recorded(record) if self._recorded is not None else ()
        if event.kind == ADOPTED:
            self.state.adopt(self._variants.others.get(event.topology, self.state.topology))
        elif event.kind in _OF_TASKS:
            self._take_answer(event, record)
        elif event.kind != REQUESTED or self._is_wanted(event):
            self._decide(event, record)
        if recorded:
            self._match_recorded(event.run_id, recorded)
        self._take_ready()

    def _take_ready(self) -> None:
        """Take the answers that waited for tasks made since."""
        while self._ready:
            self._take_answer(self._ready.popleft(), None)

    def _take_recorded(self, record: Record) -> Sequence[Effect]:
        assert self._recorded is not None
        return step(self._recorded, record)

    def _is_wanted(self, event: Event) -> bool:
        return self.until_ms is None or event.at_ms < self.until_ms or event.run_id in self.state

    def _take_answer(self, event: Event, record: Record | None) -> None:
        """Take an answer or a timer if what it answers is open here; else keep it."""
        run = self.state.runs.get(event.run_id)
        if run is None:
            return
        if not event.task_id:
            self._decide(event, record)
            return
        waiting = self._waiting.get(event.run_id)
        id = event.task_id
        if waiting is not None and waiting.matches is not None:
            id = waiting.matches.other_of.get(id, "")
        task = run.open.get(id)
        due = event.kind == DUE
        if (
            task is not None
            and task.attempt == event.attempt
            and (task.held is not None) == due
            and (due or task.agent == event.agent)
        ):
            if id != event.task_id or (not due and task.path != event.path):
                event = replace(event, task_id=id, depth=task.depth, path=task.path)
            self._decide(event, record)
        else:
            self._wait(event.run_id).answers[event.task_id, event.attempt, due] = event

    def _wait(self, run_id: str) -> _Waiting:
        found = self._waiting.get(run_id)
        if found is None:
            found = self._waiting[run_id] = _Waiting(matches=TaskMatches() if self._exact else None)
        return found

    # ----------------------------------------------------------------------------------------------------- deciding

    def _decide(self, event: Event, record: Record | None) -> None:
        """Decide an event; `record`: None for one that waited."""
        run_id = event.run_id
        variants = self._variants
        if variants.deadlines_moved or variants.retries_moved:
            self._fire_until(run_id, event.at_ms)
        if event.kind == REDRIVEN and (matches := self.matches_of(run_id)) is not None:
            event = replace(event, task_id=matches.other_of.get(event.task_id, event.task_id))
        before = self.state.runs.get(run_id)
        state = self.state
        effects = state.apply(event, state.offset) if record is None else step(state, record, event)
        self._follow(event, before, effects)

    def _fire_until(self, run_id: str, at_ms: int) -> None:
        """Fire the timers of a run that are due before its next event, where they are not as recorded."""
        while (run := self.state.runs.get(run_id)) is not None:
            due: list[tuple[int, Event]] = []
            if self._variants.deadlines_moved and run.deadline_ms < at_ms and not run.trouble.paused:
                due.append((run.deadline_ms, _timer(run, f"{run_id}:deadline", run.deadline_ms)))
            timers = self._waiting[run_id].timers if run_id in self._waiting else {}
            if self._variants.retries_moved:
                due += [(t.due_ms, _timer_of(run, t)) for t in timers.values() if t.due_ms < at_ms]
            if not due:
                return
            _, event = min(due, key=lambda found: found[0])
            self._fire(event)

    def _fire(self, event: Event) -> None:
        before = self.state.runs.get(event.run_id)
        if event.run_id in self._waiting:
            self._waiting[event.run_id].timers.pop(event.id, None)
        self._follow(event, before, self.state.apply(event, self.state.offset))

    def _follow(self, event: Event, before: Run | None, effects: Sequence[Effect]) -> None:
        finish: Run | None = None
        for effect in effects:
            if isinstance(effect, PublishTask):
                if self._exact or event.run_id in self._waiting:
                    self._dispatched(effect.event)
            elif isinstance(effect, Finish):
                finish = effect.run
            elif isinstance(effect, Schedule) and effect.task_id:
                waiting = self._wait(event.run_id)
                waiting.timers[effect.timer_id] = effect
                self._release(waiting, effect.task_id, effect.attempt, event.at_ms, due=True)
        if self._decided is not None:
            after = finish or self.state.runs.get(event.run_id)
            if before is not None or after is not None:
                self._decided(Decided(event, before, after, effects))
        if finish is not None:
            self._ended(finish)

    def _dispatched(self, task: Event) -> None:
        waiting = self._wait(task.run_id)
        if waiting.matches is not None and task.attempt == 1:
            waiting.matches.add_other(task)
        waiting.timers.pop(f"{task.task_id}:{task.attempt}:due", None)
        self._release(waiting, task.task_id, task.attempt, task.at_ms, due=False)

    def _match_recorded(self, run_id: str, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, PublishTask) and effect.event.attempt == 1 and run_id in self.state.runs:
                waiting = self._wait(run_id)
                assert waiting.matches is not None
                other = waiting.matches.add_recorded(effect.event)
                if other is not None:
                    self._release(waiting, other, 1, effect.event.at_ms, due=False)

    def _release(self, waiting: _Waiting, id: str, attempt: int, at_ms: int, *, due: bool) -> None:
        """Take an answer now that came before its task was made here."""
        recorded = id if waiting.matches is None else waiting.matches.recorded_of.get(id, "")
        event = waiting.answers.pop((recorded, attempt, due), None)
        if event is not None:
            self._ready.append(replace(event, at_ms=max(event.at_ms, at_ms)))

    # -------------------------------------------------------------------------------------------------------- ending

    def _ended(self, run: Run) -> None:
        ending = ending_of_run(run)
        self._forget(run.id)
        before = self._overdue.pop(run.id, None)
        if before is not None:
            self._done(RunWhatIf(run.id, before, ending))
            return
        self._endings[run.id, run.trouble.generation] = ending
        if len(self._endings) > UNPAIRED_MAX:
            first = next(iter(self._endings))
            self._done(RunWhatIf(first[0], None, self._endings.pop(first)))

    def take_outcome(self, run_id: str, body: Mapping[str, Any]) -> None:
        """Take the recorded outcome of a run, after the inbox records up to its time."""
        generation = body.get("generation")
        after = self._endings.pop((run_id, generation if isinstance(generation, int) else 0), None)
        if after is not None:
            self._done(RunWhatIf(run_id, ending_of_outcome(body), after))
        elif run_id in self.state.runs:
            self._overdue[run_id] = ending_of_outcome(body)
            if len(self._overdue) > OVERDUE_MAX:
                self._close(next(iter(self._overdue)))
        else:
            self.outside += 1

    def finish(self) -> None:
        """Close the runs that are open here, after the last record."""
        for run_id in list(self.state.runs.warm):
            self._close(run_id)
        for (run_id, _), after in self._endings.items():
            self._done(RunWhatIf(run_id, None, after))
        self._endings.clear()

    def _close(self, run_id: str) -> None:
        """Close a run that waits here: fire the timers of its tasks, then its end is unknown."""
        while run_id in self.state.runs.warm and (waiting := self._waiting.get(run_id)) and waiting.timers:
            timer = min(waiting.timers.values(), key=lambda found: found.due_ms)
            self._fire(_timer_of(self.state.runs[run_id], timer))
            self._take_ready()
        run = self.state.runs.get(run_id)
        before = self._overdue.pop(run_id, None)
        if run is None:
            return
        self.state.runs.discard(run_id)
        self._forget(run_id)
        asked = tuple(task.agent for task in run.open.values() if task.held is None)
        self._done(RunWhatIf(run_id, before, ending_of_run(run, UNKNOWN), asked))

    def _forget(self, run_id: str) -> None:
        if self._decided is None:
            self._waiting.pop(run_id, None)


def _timer(run: Run, id: str, due_ms: int, task_id: str = "", attempt: int = 1) -> Event:
    """Return the event of a timer that is due."""
    event = Event(id, f"/runs/{run.id}", "mesh.timer", DUE, run.id, b"{}", due_ms)
    event.task_id, event.attempt = task_id, attempt
    return event


def _timer_of(run: Run, timer: Schedule) -> Event:
    return _timer(run, timer.timer_id, timer.due_ms, timer.task_id, timer.attempt)
