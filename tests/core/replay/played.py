"""Runs played to their end without a log: agents are functions of their input, time is a millisecond a record."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from heapq import heappop, heappush
from typing import Any

from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import NO_USAGE, REQUESTED, Event, Fault, Part, Usage
from mesh.core.protocol.record import StoredRecord
from mesh.core.publishing.effect_records import due_record, outcome_body, record_of
from mesh.core.replay.endings import Ending, RunWhatIf, ending_of_outcome
from mesh.core.replay.what_if import Variants, WhatIf
from mesh.core.run.effects import Finish, PublishTask, Schedule
from mesh.core.state.partition_state import Partition
from mesh.core.state.topology_registry import Registry
from mesh.core.task.result import failure_event, success_event
from mesh.core.topology.digest import digest_of
from mesh.core.topology.model import Topology
from tests.builders import AT_MS, json

Answer = list[Part] | Fault
Behaviour = Callable[[Event], Answer]


def sole(mesh: Topology) -> Topology:
    """The mesh with one inbox partition, under its own digest."""
    mesh = replace(mesh, inbox_partitions=1)
    return replace(mesh, digest=digest_of(mesh))


class Played:
    """The inbox of these requests, and how each run ended."""

    def __init__(
        self, mesh: Topology, requests: Iterable[Mapping[str, Any]], behaviour: Behaviour, usage: Usage = NO_USAGE
    ) -> None:
        self.mesh = mesh
        self.records: list[StoredRecord] = []
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.told: list[tuple[int, str, dict[str, Any]]] = []
        """Offset after which each outcome was published."""
        self.state = Partition(mesh, number=0, partitions=1)
        self.at_ms = AT_MS
        self._answers: deque[Event] = deque()
        self._timers: list[tuple[int, int, Schedule]] = []
        self._behaviour, self._usage = behaviour, usage
        for n, payload in enumerate(requests):
            self.request(n, payload)
            self.work(steps=3)
        self.work()

    def request(self, n: int, payload: Mapping[str, Any]) -> None:
        id = f"run-{n}"
        self.fold(Event(id, "/tests", "ask", REQUESTED, id, json(payload), self.at_ms))

    def work(self, steps: int | None = None) -> None:
        """Let agents answer and timers fire, until nothing is left."""
        while (self._answers or (steps is None and self._timers)) and steps != 0:
            steps = None if steps is None else steps - 1
            if self._timers and (not self._answers or self._timers[0][0] <= self.at_ms):
                due_ms, _, timer = heappop(self._timers)
                if not timer.task_id and timer.run_id not in self.state.runs:
                    continue
                self.at_ms = max(self.at_ms, due_ms)
                made = due_record(timer, self.at_ms, self.mesh)
                self.store(StoredRecord(made.topic, 0, 0, self.at_ms, made.key, made.value, made.headers))
            else:
                self.fold(self._answers.popleft())

    def fold(self, event: Event) -> None:
        key = event.run_id.encode()
        self.store(StoredRecord(self.mesh.inbox, 0, 0, self.at_ms, key, event.data, tuple(event_headers(event))))

    def store(self, record: StoredRecord) -> None:
        self.at_ms += 1
        record = record._replace(offset=len(self.records), timestamp=self.at_ms)
        self.records.append(record)
        for effect in self.state.step(record):
            if isinstance(effect, PublishTask):
                self._answers.append(self.answer(effect))
            elif isinstance(effect, Schedule):
                heappush(self._timers, (effect.due_ms, len(self.records), effect))
            elif isinstance(effect, Finish):
                body = self.outcomes[effect.run.id] = outcome_body(effect.run)
                self.told.append((record.offset, effect.run.id, body))

    def answer(self, effect: PublishTask) -> Event:
        sent = record_of(effect, self.mesh)
        task = read_event(StoredRecord(sent.topic, 0, 4_711, AT_MS, sent.key, sent.value, sent.headers))
        assert isinstance(task, Event)
        found = self._behaviour(task)
        if isinstance(found, Fault):
            return failure_event(task, found, self._usage)
        return success_event(task, found, self._usage)

    @property
    def endings(self) -> dict[str, Ending]:
        return {run_id: ending_of_outcome(body) for run_id, body in self.outcomes.items()}

    def what_if(self, variant: Topology, *, exact: bool = False, late: int = 0) -> dict[str, RunWhatIf]:
        """Each run under another topology. `late`: offsets by which outcomes come later than their decision."""
        found: dict[str, RunWhatIf] = {}

        def done(run: RunWhatIf) -> None:
            assert run.run_id not in found
            found[run.run_id] = run

        variants = Variants(self.mesh, Registry(self.mesh.inbox), lambda _: variant)
        what_if = WhatIf(variants, number=0, exact=exact, done=done)
        told = deque(self.told)
        for record in self.records:
            what_if.take(record)
            while told and told[0][0] + late <= record.offset:
                what_if.take_outcome(*told.popleft()[1:])
        for _, run_id, body in told:
            what_if.take_outcome(run_id, body)
        what_if.finish()
        assert not what_if.state.runs
        assert what_if.outside == 0
        return found
