"""Fold one run's records into its history: tasks with agents and times, refusals, ending.

    history = History(topology, partition=3)
    for record in records_of_the_run: moments = history.take(record)
    history.tasks, history.ending, history.refusals, …

This is the fold of the orchestrator: the records of mesh.inbox are what happened, and the effects that `decide` returns
are what followed. Times are those of the log. `kept` names the topology under which the run was opened. If it does not,
and the topology has changed since, the fold may differ from the decisions made then. The outcome on the log then has
priority, and `differs` reports it.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mesh.core.history.outcome_body import draft_of, failure_of, refusal_of, result_of, time_ms, unrouted_of, used_of
from mesh.core.history.run_fold import Decided, RunFold
from mesh.core.history.skipped_agents import SkippedAgent, skipped_agents
from mesh.core.history.task_attempts import (
    DEAD,
    DONE,
    DROPPED,
    REPLACED,
    WAITING,
    WORKING,
    Moment,
    TaskAttempt,
    TaskHistory,
    UnchargedUsage,
    task_history_of,
)
from mesh.core.protocol.codec import Unreadable
from mesh.core.protocol.event import (
    CANCELLED,
    DUE,
    FAILED,
    NO_USAGE,
    PAUSED,
    REDRIVEN,
    REQUESTED,
    RESUMED,
    SUCCEEDED,
    Event,
    Fault,
    Usage,
)
from mesh.core.protocol.record import Record
from mesh.core.publishing.request_rejection import DUPLICATE, LateRequest
from mesh.core.run.effects import DeadLetter, Effect, Finish, Note, PublishEvent, PublishTask, Schedule
from mesh.core.run.lineage import Refusal
from mesh.core.run.routing import JOIN_TYPE
from mesh.core.run.state import NO_TROUBLE, Failure, Result, Run, Unrouted
from mesh.core.state.partition_state import Partition
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.model import Topology


class History:
    """The history of one run so far. Takes the records of its partition in order, and ignores those of other runs."""

    def __init__(
        self, topology: Topology, run_id: str, *, partition: int, kept: Registry | None = None, payloads: bool = False
    ) -> None:
        """`topology`: that of the mesh now. `kept`: contents of mesh.topologies. `payloads`: keep emitted payloads."""
        self.topology = topology
        self.run_id = run_id
        self.partition = partition
        self.request: Event | None = None
        """The event that opened the run; None until it was seen."""
        self.tasks: dict[str, TaskHistory] = {}
        """By task id, in the order of dispatch."""
        self.moments: list[Moment] = []
        self.records: list[Record] = []
        """Records taken; empty if the history does not keep payloads."""
        self.skipped: list[SkippedAgent] = []
        """Agents that consume an event of the run and got no task, because their `when` was false."""
        self.uncharged = UnchargedUsage()
        self._payloads = payloads
        self.outcome: dict[str, Any] | None = None
        """Body of the outcome record, after `take_outcome`."""
        self.late: LateRequest | None = None
        """Answer to a request that came after the run had ended, when no other records of it were left."""
        self.subject = ""
        self._fold = RunFold(topology, run_id, partition=partition, kept=kept)
        self._decides: Callable[[Run], Topology] = self._fold.topology_of
        self.run: Run | None = None
        """State of the run as folded; after its end the last one."""

    # ------------------------------------------------------------------------------------------------------ reading

    @property
    def state(self) -> str:
        """`open`, or the ending; the outcome on the log decides."""
        return self.ending or "open"

    @property
    def ending(self) -> str:
        """Ending of the run; "" while it is open."""
        if self.outcome:
            return str(self.outcome["ending"])
        return self.folded_ending or (self.late.ending if self.late else "")

    @property
    def folded_ending(self) -> str:
        """Ending under the topology of this fold."""
        return self.run.ending if self.run else ""

    @property
    def differs(self) -> bool:
        """Whether the outcome on the log differs from that of the fold."""
        return self.outcome is not None and self.run is not None and self.outcome["ending"] != self.folded_ending

    @property
    def type(self) -> str:
        """Type of the request; "" if neither it nor the outcome was seen."""
        if self.request is not None:
            return self.request.type
        if self.outcome is not None:
            return str(self.outcome.get("request", {}).get("type", ""))
        return "" if self.run is None else self.run.type

    @property
    def opened_ms(self) -> int:
        """Log time of the request; 0 if unknown."""
        if self.run is None and self.outcome is not None:
            return time_ms(self.outcome["opened"])
        if self.run is None:
            return 0 if self.request is None else self.request.at_ms
        return self.run.opened_ms

    @property
    def ended_ms(self) -> int | None:
        """Log time of the event that ended it."""
        if self.outcome is not None:
            return time_ms(self.outcome["ended"])
        return self.run.ended_ms if self.run and self.run.ending else None

    @property
    def refusals(self) -> Sequence[Refusal]:
        """Refused hops, results and requests, with path and numbers."""
        if self.outcome is not None:
            return [refusal_of(found) for found in self.outcome.get("refusals", ())]
        return self.run.refusals if self.run else ()

    @property
    def failures(self) -> Sequence[Failure]:
        """Tasks that failed for good."""
        if self.outcome is not None:
            return [failure_of(found) for found in self.outcome.get("failures", ())]
        return self.run.failures if self.run else ()

    @property
    def starved(self) -> Sequence[str]:
        """Joins that got an input and could not fire."""
        if self.outcome is not None:
            return [str(text) for text in self.outcome.get("starved", ())]
        return self.run.starved if self.run else ()

    @property
    def unrouted(self) -> Sequence[Unrouted]:
        """Events that had no consumer."""
        if self.outcome is not None:
            return [unrouted_of(found) for found in self.outcome.get("unrouted", ())]
        return self.run.unrouted if self.run else ()

    @property
    def drafts(self) -> Sequence[Result]:
        """Last inputs of loops that a limit ended; the id is that of the dead letter."""
        if self.outcome is not None:
            return [draft_of(found) for found in self.outcome.get("drafts", ())]
        return [Result(d.letter, d.type, d.agent, d.data) for d in self.run.drafts] if self.run else ()

    @property
    def overspent(self) -> Sequence[str]:
        """Budgets that the run exceeded."""
        if self.outcome is not None:
            return [str(text) for text in self.outcome.get("overspent", ())]
        return self.run.overspent if self.run else ()

    @property
    def used(self) -> Usage:
        """Usage that the run was charged."""
        if self.outcome is not None:
            return used_of(self.outcome.get("used", {}))
        return Usage(self.run.usd_micros, self.run.tokens) if self.run else NO_USAGE

    @property
    def results(self) -> Sequence[Result]:
        """Payloads that left the mesh."""
        if self.outcome is not None:
            return [result_of(found) for found in self.outcome.get("results", ())]
        return self.run.results if self.run else ()

    def children(self, parent: str) -> list[TaskHistory]:
        """Return the tasks that the answer of `parent` ("" for the request) caused, in the order of dispatch."""
        return [task for task in self.tasks.values() if task.parent == parent]

    # ------------------------------------------------------------------------------------------------------ folding

    def begin_with(self, state: Partition, request: Event | None = None) -> None:
        """Begin with the run's state in a checkpoint; only later records may follow. `request`: one of the run's
        requests that is left on the log."""
        self.request, self.subject = request, "" if request is None else request.subject
        run = self.run = self._fold.begin_with(state)
        if run is None:
            return
        self.subject = run.subject
        self.tasks = {task.id: task_history_of(task, run.opened_ms) for task in run.open.values()}
        if run.trouble.paused:
            self._add_moment(run.trouble.paused_ms, PAUSED, "", run.trouble.paused)

    def take(self, record: Record) -> Sequence[Moment]:
        """Fold one record of mesh.inbox and return the new moments. Ignores records of other runs."""
        if record.key != self.run_id.encode():
            return ()
        if self._payloads:
            self.records.append(record)
        decided = self._fold.take(record)
        if isinstance(decided, Unreadable):
            return self._add_moment(record.timestamp, "dropped", "", f"{decided.code}: {decided.message}")
        return () if decided is None else self.follow(decided, self._fold.topology_of)

    def follow(self, decided: Decided, topology_of: Callable[[Run], Topology]) -> Sequence[Moment]:
        """Add what one event did, as another fold decided it; return the new moments."""
        known = len(self.moments)
        event, before, after, effects = decided
        self.run = after or self.run
        self._decides = topology_of
        self._record_event(event, before, after)
        if after is not None:
            self._record_transitions(event, before, after)
            if event.kind in (REQUESTED, SUCCEEDED):
                self.skipped += skipped_agents(event, before, after, topology_of(after))
        for refusal in () if after is None else after.refusals[len(before.refusals) if before else 0 :]:
            self._add_moment(event.at_ms, "refused", refusal.agent, refusal.message)
        lost = () if before is None else before.unrouted
        for fact in () if after is None else after.unrouted:
            if fact not in lost:
                self._add_moment(event.at_ms, "unrouted", fact.agent, fact.message)
        for effect in effects:
            self._record_effect(event, effect)
            if isinstance(effect, DeadLetter) and not any(effect.message in m.text for m in self.moments[known:]):
                self._add_moment(event.at_ms, "refused", effect.agent, f"{effect.code}: {effect.message}")
        return self.moments[known:]

    def is_removed(self, task: TaskHistory) -> bool:
        """Return whether a task waits for an agent that the current topology no longer declares."""
        return task.state in (WORKING, WAITING) and task.agent not in self.topology.agents

    def take_outcome(self, outcome: Event, body: dict[str, Any]) -> Sequence[Moment]:
        """Take the run's record on mesh.outcomes with its parsed body, which then determines the ending.

        Ignores an outcome from before the run was opened again.
        """
        known = -1 if self.outcome is None else int(self.outcome.get("generation", 0))
        reached = 0 if self.run is None else self.run.trouble.generation
        if int(body.get("generation", 0)) < max(reached, known + 1):
            return ()
        begun = self.run is not None and time_ms(body["opened"]) < self.run.opened_ms
        if begun:
            self._note_late(LateRequest(self.run_id, DUPLICATE, "the run began before the records that are left", ""))
        self.outcome = body
        self.subject = self.subject or outcome.subject
        if begun or self.folded_ending == self.ending:
            return ()
        self._drop_open_tasks(outcome.at_ms)
        return self._add_moment(outcome.at_ms, "ended", "", self.ending)

    def take_late_answer(self, late: LateRequest) -> None:
        """Take the answer to a request that came after the run had ended, unless its ending is known."""
        if not self.ending:
            self._note_late(late)

    def _note_late(self, late: LateRequest) -> None:
        self.late, self.run = late, None
        self.tasks, self.skipped = {}, []
        self.moments = [moment for moment in self.moments if moment.kind == REQUESTED]
        self._add_moment(self.opened_ms, "noted", "", f"{late.code}: {late.message}")

    def _record_event(self, event: Event, before: Run | None, after: Run | None) -> None:
        if event.kind == REQUESTED and after is not None and (before is None or event.id not in before.roots):
            self.request = self.request or event
            self.subject = self.subject or event.subject
            self._add_moment(event.at_ms, REQUESTED, "", event.type)
        elif event.kind == CANCELLED and after is not None:
            self._add_moment(event.at_ms, CANCELLED, "", event.subject or "the run was cancelled")
        elif event.kind in (SUCCEEDED, FAILED):
            was = None if before is None else before.open.get(event.task_id)
            now = None if after is None else after.open.get(event.task_id)
            if event.task_id in self.tasks:
                ended = before is not None and bool(before.ending)
                self.uncharged.take(event, charged=was != now and not ended)
            if was != now:
                self._record_answer(self.tasks[event.task_id], event)
            elif event.task_id and event.task_id not in self.tasks:
                self._add_unknown_task(event)

    def _record_transitions(self, event: Event, before: Run | None, after: Run) -> None:
        """Add pauses, redrives, and tasks that wait from the beginning."""
        was, now = (NO_TROUBLE if before is None else before.trouble), after.trouble
        if now.generation > was.generation:
            self.outcome = None  # the run was opened again
        if now.redrives != was.redrives:
            text = f"sent again: {event.id}" if after.ending or now.generation == was.generation else "opened again"
            self._add_moment(event.at_ms, REDRIVEN, event.agent, text)
        if now.paused and not was.paused:
            self._add_moment(event.at_ms, PAUSED, "", now.paused)
        elif was.paused and not now.paused:
            self._add_moment(event.at_ms, RESUMED, "", f"after {event.at_ms - was.paused_ms} ms")
        for task in after.open.values():
            if task.held is not None and task.id not in self.tasks:
                self._begin_task(event, task.id, task.agent, task.held.type, task.path, task.cause_id, WAITING)

    def _begin_task(
        self, cause: Event, id: str, agent: str, type: str, path: tuple[str, ...], cause_id: str, state: str
    ) -> TaskHistory:
        """Add a new task; a fallback lies below the task that it replaces."""
        parent = cause.task_id if cause.kind in (SUCCEEDED, FAILED, DUE) else ""
        before = self.tasks.get(cause.task_id)
        if before is not None and cause.kind in (FAILED, DUE, REDRIVEN):
            before.state = REPLACED
            parent = before.parent if cause.kind == REDRIVEN else parent
        task = TaskHistory(id, agent, type, len(path), path, parent, cause_id, cause.at_ms, state)
        self.tasks[id] = task
        return task

    def _add_unknown_task(self, event: Event) -> None:
        """Add a task that was dispatched under another topology, from its answer."""
        above = [task for task in self.tasks.values() if task.path == event.path[:-1]]
        parent = above[-1].id if above else ""
        task = TaskHistory(event.task_id, event.agent, "", event.depth, event.path, parent, event.cause_id, event.at_ms)
        self.tasks[task.id] = task
        self._record_answer(task, event)

    def _record_answer(self, task: TaskHistory, event: Event) -> None:
        began_ms = task.attempts[-1].began_ms if task.attempts else task.began_ms
        task.ended_ms = event.at_ms
        if event.usage is not None:
            task.usd_micros += event.usage.usd_micros
            task.tokens += event.usage.tokens
        if task.attempts and task.attempts[-1].number == event.attempt:
            task.attempts.pop()
        task.attempts.append(TaskAttempt(event.attempt, began_ms, event.at_ms, event.fault, event.waited_ms))
        if event.kind == SUCCEEDED:
            task.state = DONE
            try:
                parts = tuple(event.parts())
            except ValueError:
                parts = ()
            task.emitted = tuple(part.type for part in parts)
            task.parts = parts if self._payloads else ()
            self._add_moment(event.at_ms, SUCCEEDED, task.agent, ", ".join(task.emitted) or "nothing emitted", task.id)
        else:
            task.state = DEAD
            fault = event.fault or Fault("unknown", "no reason was given")
            self._add_moment(event.at_ms, FAILED, task.agent, f"{fault.code}: {fault.message}", task.id)

    def _record_effect(self, event: Event, effect: Effect) -> None:
        match effect:
            case PublishTask():
                self._record_dispatch(event, effect.event)
            case PublishEvent():
                self._add_moment(event.at_ms, "left", event.agent, f"{effect.event.type} → {effect.topic}")
            case Schedule() if effect.task_id:
                task = self.tasks[effect.task_id]
                task.state = WAITING
                text = f"attempt {effect.attempt} in {effect.due_ms - event.at_ms} ms"
                self._add_moment(event.at_ms, "retry", task.agent, text, task.id)
            case DeadLetter() if effect.task_id:
                self._add_moment(event.at_ms, "dead", effect.agent, f"{effect.code}: {effect.message}", effect.task_id)
            case Note():
                self._add_moment(event.at_ms, "noted", event.agent, f"{effect.code}: {effect.message}", event.task_id)
            case Finish():
                self._drop_open_tasks(event.at_ms)
                self._add_moment(event.at_ms, "ended", "", effect.run.ending)

    def _record_dispatch(self, cause: Event, sent: Event) -> None:
        task = self.tasks.get(sent.task_id)
        if task is None:
            task = self._begin_task(cause, sent.task_id, sent.agent, sent.type, sent.path, sent.cause_id, WORKING)
        task.state = WORKING
        task.ended_ms = None
        task.attempts.append(TaskAttempt(sent.attempt, cause.at_ms))
        inputs = sent.type
        if sent.type == JOIN_TYPE and self.run is not None:
            inputs = " + ".join(self._decides(self.run).agents[sent.agent].on)
        text = inputs if sent.attempt == 1 else f"{inputs}, attempt {sent.attempt}"
        self._add_moment(cause.at_ms, "dispatched", sent.agent, text, sent.task_id)

    def _drop_open_tasks(self, at_ms: int) -> None:
        for task in self.tasks.values():
            if task.state in (WORKING, WAITING):
                task.state = DROPPED
                task.ended_ms = at_ms

    def _add_moment(self, at_ms: int, kind: str, agent: str, text: str, task_id: str = "") -> Sequence[Moment]:
        moment = Moment(at_ms, kind, agent, text, task_id)
        self.moments.append(moment)
        return (moment,)
