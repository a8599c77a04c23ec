"""A small mesh that has lived, as records in memory: what checks of the log are tried on, whole and corrupted.

lived = live(topology, [event(...), ...])
lived.records["mesh.tasks.plan"][0]
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mesh.core.protocol.codec import event_headers, plain_headers, read_event
from mesh.core.protocol.event import NO_USAGE, Event, Fault, Part, Usage
from mesh.core.protocol.record import NewRecord, Record, StoredRecord, TopicPartition
from mesh.core.publishing.effect_records import dead_letter, due_record, record_of
from mesh.core.run.dead_letter import dead_record
from mesh.core.run.effects import DeadLetter, Effect, Finish, PublishEvent, PublishTask, Schedule
from mesh.core.state.partition_state import Partition
from mesh.core.task.result import failure_event, success_event
from mesh.core.topology.model import Limits, Retry, Topology
from mesh.core.verification.report import VerificationReport
from tests.builders import AT_MS, agent, event, topology
from tests.log_check import Submission, check

Answer = Callable[[Event], Event]
INBOX = TopicPartition("mesh.inbox", 0)


@dataclass
class Lived:
    """Topic → records, all in partition 0, and what else a check may be told."""

    topology: Topology
    records: dict[str, list[StoredRecord]] = field(default_factory=dict)
    committed: dict[TopicPartition, int] | None = None
    heads: dict[TopicPartition, int] | None = None
    commits: list[tuple[TopicPartition, int]] = field(default_factory=list)
    ledger: list[Submission] = field(default_factory=list)
    quiescent: bool = True

    def check(self) -> VerificationReport:
        """Return the violations that the checker finds in it."""
        return check(
            self.topology,
            self.records,
            ledger=self.ledger,
            commits=self.commits,
            states=self.fresh,
            heads=self.heads or {},
            committed=self.committed,
            quiescent=self.quiescent,
        )

    def found(self) -> list[str]:
        """Invariants that do not hold, sorted, one for each violation."""
        return sorted(self.check().found.elements())

    def fresh(self, number: int) -> Partition:
        """A fold from the beginning."""
        return Partition(self.topology, number=number, partitions=1)

    def append(self, record: NewRecord, at_ms: int) -> StoredRecord:
        """Put a record at the end of its topic."""
        stored = self.records.setdefault(record.topic, [])
        offset = stored[-1].offset + 1 if stored else 0
        placed = StoredRecord(record.topic, 0, offset, at_ms, record.key, record.value, tuple(record.headers))
        stored.append(placed)
        return placed

    def change(self, topic: str, n: int, **changes: Any) -> None:
        """Corrupt the n-th record of a topic; `headers` replaces those it names, None takes one away."""
        before = self.records[topic][n]
        if "headers" in changes:
            merged = {**dict(plain_headers(before.headers)), **changes["headers"]}
            changes["headers"] = tuple((name, value) for name, value in merged.items() if value is not None)
        self.records[topic][n] = before._replace(**changes)

    def repeat(self, topic: str, n: int, **changes: Any) -> None:
        """Append the n-th record of a topic once more, changed or not."""
        again = self.records[topic][n]
        self.append(NewRecord(topic, again.key, again.value, again.headers), again.timestamp)
        if changes:
            self.change(topic, -1, **changes)


def live(topology: Topology, requests: Iterable[Event], answer: Answer | None = None, *, at_ms: int = AT_MS) -> Lived:
    """Let these requests run until nothing is left to do. `answer` is what agents say, by default `answered`."""
    lived = Lived(topology)
    state = lived.fresh(0)
    waiting = [NewRecord(topology.inbox, e.run_id.encode(), e.data, event_headers(e)) for e in requests]
    timers: list[Schedule] = []
    while waiting or timers:
        if waiting:
            stored = lived.append(waiting.pop(0), at_ms)
        else:
            timer = timers.pop(0)
            at_ms = max(at_ms, timer.due_ms)
            stored = lived.append(due_record(timer, at_ms, topology), at_ms)
        at_ms += 1
        for effect in state.step(stored):
            if isinstance(effect, Schedule):
                timers.append(effect)
            waiting.extend(_perform(effect, lived, at_ms, answer or answered))
        timers = sorted((timer for timer in timers if timer.run_id in state.runs), key=lambda timer: timer.due_ms)
    return lived


def _perform(effect: Effect, lived: Lived, at_ms: int, answer: Answer) -> Sequence[NewRecord]:
    new = published(effect, lived)
    if new is None:
        return ()
    stored = lived.append(new, at_ms)
    if not isinstance(effect, PublishTask):
        return ()
    said = answer(task_in(stored))
    return [NewRecord(lived.topology.inbox, said.run_id.encode(), said.data, event_headers(said))]


def task_in(record: Record) -> Event:
    """The task in a record of a task topic."""
    task = read_event(record)
    assert isinstance(task, Event)
    return task


def answered(task: Event) -> Event:
    """One event of each type that the agents of these tests emit: `<agent>.done`, for a dollar's thousandth."""
    return success_event(task, [Part(f"{task.agent}.done", task.data)], Usage(1_000, 10))


def failing(times: int) -> Answer:
    """Agents that fail their first attempts."""

    def answer(task: Event) -> Event:
        if task.attempt > times:
            return answered(task)
        return failure_event(task, Fault("exception", "it broke"), Usage(500, 5))

    return answer


def published(effect: Effect, lived: Lived) -> NewRecord | None:
    """The record that performs an effect."""
    if not isinstance(effect, PublishTask | PublishEvent | DeadLetter | Finish):
        return None
    return record_of(effect, lived.topology)


def last_effects(lived: Lived) -> list[NewRecord]:
    """Return the effects of the last record of the inbox."""
    state = lived.fresh(0)
    effects = [state.step(record) for record in lived.records[INBOX.topic]]
    return [new for effect in effects[-1] if (new := published(effect, lived)) is not None]


def as_new(record: StoredRecord) -> NewRecord:
    """A record, to be appended again."""
    return NewRecord(record.topic, record.key, record.value, record.headers)


# ------------------------------------------------------------------------------------------------- two desks that lived

MESH = topology(
    Limits(usd_micros_max=100_000),
    plan=agent("ask -> plan.done", reserve_usd_micros=2_000, retry=Retry(attempts_max=2)),
    ship=agent("plan.done -> ship.done", reserve_usd_micros=2_000),
)
PLAN, SHIP, OUTCOMES, DEAD, OUT = "mesh.tasks.plan", "mesh.tasks.ship", "mesh.outcomes", "mesh.dead", "out.ship.done"


def requests(n: int) -> list[Event]:
    """Requests for `n` runs."""
    return [event(id=f"r{i}", run_id=f"run-{i}", data=b'{"n":%d}' % i) for i in range(n)]


def good(n: int = 3) -> Lived:
    """Runs that completed, with their ledger and what was committed."""
    lived = live(MESH, requests(n))
    lived.ledger = [Submission(f"run-{i}", f"r{i}") for i in range(n)]
    ends = {TopicPartition(topic, 0): len(records) for topic, records in lived.records.items()}
    lived.committed = {place: end for place, end in ends.items() if place.topic in (INBOX.topic, PLAN, SHIP)}
    return lived


def gone_wrong(n: int = 2) -> Lived:
    """Every first attempt of the planner fails, and that of run-0 for good."""

    def answer(task: Event) -> Event:
        if task.run_id == "run-0" and task.agent == "plan":
            return failure_event(task, Fault("exception", "it broke for good"), NO_USAGE)
        return failing(1)(task) if task.agent == "plan" else answered(task)

    return live(MESH, requests(n), answer)


def open_run(lived: Lived) -> None:
    """The last run loses its last answer, and all that followed."""
    lived.records[INBOX.topic].pop()
    lived.records[OUTCOMES].pop()
    lived.records[OUT].pop()
    lived.committed = None


def rejected_request() -> Lived:
    """A request on an ingress topic that intake put to the dead letters."""
    lived = good()
    bad = StoredRecord("in.ask", 0, 5, AT_MS, b"k", b"no json", (("x", b"y"),))
    lived.records["in.ask"] = [bad]
    lived.append(dead_letter(dead_record(bad, "unparseable", "no JSON"), MESH), AT_MS)
    return lived
