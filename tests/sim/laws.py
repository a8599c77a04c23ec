"""Laws of the records that are checked without `decide`, so that they find mistakes in `decide` itself.

Deciding again with the same code repeats its mistakes; counting attempts, waits and money does not.
"""

from collections import defaultdict
from collections.abc import Iterator

import orjson

from mesh.core.protocol.event import DUE, FAILED, OUTCOME, REDRIVEN, RESUMED, SUCCEEDED, TASK, Event
from mesh.core.publishing.effect_records import OUTCOME_TYPE
from mesh.core.run.backoff import delay_ms
from mesh.core.topology.model import Topology
from tests.sim.broker import Broker

Attempt = tuple[str, int]


UNTRIED = ("later", "expired", "left_alone")
"""Faults of attempts that are made up for: the agent did not want to, or a clock that is ahead kept it from it."""


EARLY_MS_MAX = 2_000
"""Between the clocks of two brokers, and a message on its way."""


class Facts:
    """The records about tasks, by task id and attempt."""

    def __init__(self, broker: Broker, topology: Topology) -> None:
        self.tasks: dict[Attempt, Event] = {}
        """The first record of each attempt."""
        self.last: dict[str, int] = {}
        """The highest attempt of each task."""
        self.failed: dict[Attempt, Event] = {}
        """The first failure of each attempt."""
        self.tokens: dict[str, dict[Attempt, int]] = defaultdict(dict)
        """Run → attempt → tokens that were reported; the highest figure, if answers differ."""
        self.later: dict[str, int] = defaultdict(int)
        self.dues: dict[Attempt, list[tuple[int, int]]] = defaultdict(list)
        """Attempt → log time and moment of each of its timers on the inbox."""
        self.moments: dict[Attempt, int] = {}
        self.free: set[str] = set()
        """Runs in which people let tasks begin again, so that attempts and waits are not ours to judge."""
        for name in topology.agents:
            for event, moment in _events(broker, topology.tasks(name)):
                key = (event.task_id, event.attempt)
                if event.agent == name and event.task_id:
                    self.tasks.setdefault(key, event)
                    self.moments[key] = min(moment, self.moments.get(key, moment))
                    self.last[event.task_id] = max(event.attempt, self.last.get(event.task_id, 0))
        self.failed_ms: dict[Attempt, int] = {}
        """Time of the first failure of each attempt, in its partition."""
        for event, moment, time_ms in _inbox(broker, topology):
            key = (event.task_id, event.attempt)
            if event.kind in (REDRIVEN, RESUMED):
                self.free.add(event.run_id)
            if event.kind == DUE:
                self.dues[key].append((time_ms, moment))
            if event.kind in (SUCCEEDED, FAILED):
                tokens = event.usage.tokens if event.usage is not None else 10**9
                of_run = self.tokens[event.run_id]
                of_run[key] = max(tokens, of_run.get(key, 0))
            # What a stranger says of an attempt before its timer has come is no failure of it.
            begun = event.attempt == 1 or bool(self.dues[key])
            if event.kind == FAILED and begun and key not in self.failed:
                self.failed[key] = event
                self.failed_ms[key] = time_ms
                self.later[event.task_id] += event.fault is not None and event.fault.code in UNTRIED


def _names(broker: Broker, topology: Topology) -> Iterator[str]:
    """The id of a task, and of the timer before it, says which attempt it is."""
    for topic in (topology.inbox, *(topology.tasks(name) for name in topology.agents)):
        for event, _ in _events(broker, topic):
            named = f"{event.id}:".startswith(f"{event.task_id}:{event.attempt}:")
            if event.kind in (TASK, DUE) and event.task_id and not named:
                yield f"{event.kind} {event.id} claims to be attempt {event.attempt} of {event.task_id}"


def breaches(broker: Broker, topology: Topology) -> Iterator[str]:
    """Every breach, in plain words."""
    facts = Facts(broker, topology)
    yield from _names(broker, topology)
    yield from _attempts(facts, topology)
    yield from _results(broker, topology, facts)
    yield from _money(broker, topology, facts)
    yield from _stopped(broker, topology)
    yield from _times(facts, EARLY_MS_MAX + broker.clocks.apart_ms)


def _stopped(broker: Broker, topology: Topology) -> Iterator[str]:
    """No run suffers from a task that was stopped because its run had ended."""
    for event, _ in _events(broker, topology.outcomes):
        if event.kind == OUTCOME and event.type.startswith(OUTCOME_TYPE):
            for failure in orjson.loads(event.data).get("failures", ()):
                if failure["code"] == "run_ended":
                    yield f"a task {failure['task_id']} of run {event.run_id} was stopped as if it had ended"


def _times(facts: Facts, early_ms_max: int) -> Iterator[str]:
    """Deadlines are those of the log: no worker says before one has passed that it has."""
    for (task_id, attempt), event in facts.failed.items():
        task = facts.tasks.get((task_id, attempt))
        if task is None or event.fault is None or event.fault.code != "expired" or task.expiry_ms is None:
            continue
        if (early_ms := task.expiry_ms - event.at_ms) > early_ms_max:
            yield f"attempt {attempt} of task {task_id} has expired {early_ms} ms before its run's deadline"


def _events(broker: Broker, topic: str) -> Iterator[tuple[Event, int]]:
    """Events of a topic with the moments at which they were stored."""
    for partition in broker.topics[topic]:
        for _, moment, event in partition.read():
            if isinstance(event, Event):
                yield event, moment


def _inbox(broker: Broker, topology: Topology) -> Iterator[tuple[Event, int, int]]:
    """Events of the inbox with the moments at which they were stored, and the time in their partitions.

    That time goes on from where it was when the clock of the broker is set back.
    """
    for partition in broker.topics[topology.inbox]:
        time_ms = ahead_ms = 0
        for _, moment, event in partition.read():
            if isinstance(event, Event):
                time_ms = max(time_ms, event.at_ms + ahead_ms) if event.at_ms < time_ms else event.at_ms
                ahead_ms = time_ms - event.at_ms
                yield event, moment, time_ms


def _attempts(facts: Facts, topology: Topology) -> Iterator[str]:
    """Check that no task is tried more often than declared, nor earlier."""
    for (task_id, attempt), task in facts.tasks.items():
        if task.run_id in facts.free:
            continue
        retry = topology.agents[task.agent].retry
        allowed = retry.attempts_max + facts.later[task_id]
        if attempt > allowed:
            yield f"task {task_id} of {task.agent!r} is tried for the {attempt}th time, at most {allowed}"
        failure = facts.failed.get((task_id, attempt - 1))
        if attempt > 1 and failure is not None and not facts.later[task_id]:
            due_ms = facts.failed_ms[(task_id, attempt - 1)] + delay_ms(retry, attempt - 1, seed=task_id)
            timers = facts.dues[(task_id, attempt)]
            if not any(at_ms >= due_ms and moment < facts.moments[(task_id, attempt)] for at_ms, moment in timers):
                yield f"attempt {attempt} of task {task_id} came too early: no timer came at {due_ms} or later"


def _results(broker: Broker, topology: Topology, facts: Facts) -> Iterator[str]:
    """Check that effects of a result follow from that of the last attempt."""
    egress = [rule.name for rule in topology.topics.values() if rule.egress]
    for topic in (*(topology.tasks(name) for name in topology.agents), *egress):
        for event, _ in _events(broker, topic):
            task_id, _, rest = event.cause_id.partition(":")
            attempt, _, kind = rest.partition(":")
            if kind != SUCCEEDED or event.run_id in facts.free:
                continue
            last = facts.last.get(task_id, 0)
            if int(attempt) < last:
                yield f"{topic}: {event.id} follows from attempt {attempt} of {task_id}, which had {last} attempts"


def _money(broker: Broker, topology: Topology, facts: Facts) -> Iterator[str]:
    """A run is charged what its attempts reported, and for those that were cut off what they had reserved."""
    reserved = max(spec.reserve_tokens for spec in topology.agents.values())
    for event, _ in _events(broker, topology.outcomes):
        if event.kind != OUTCOME or not event.type.startswith(OUTCOME_TYPE):
            continue
        body = orjson.loads(event.data)
        reports = facts.tokens[event.run_id]
        most = sum(reports.values()) + reserved * body["tasks"]
        if body["used"]["tokens"] > most:
            yield f"run {event.run_id} is charged {body['used']['tokens']} tokens; its attempts used at most {most}"
