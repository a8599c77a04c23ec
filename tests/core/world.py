"""A seeded world around one partition: a random mesh, agents that answer anything, a wire that repeats and reorders.

    world = World(seed=7)
    world.live()        # until every run has ended

It audits each step (`tests.playbook.audit`) and keeps the books that decide's own must agree with. A failure names
the seed, and the seed is the bug report.
"""

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import CANCELLED, DUE, NO_USAGE, PAUSED, REDRIVEN, RESUMED, Event, Fault, Part, Usage
from mesh.core.protocol.record import StoredRecord
from mesh.core.run.dead_letter import failure_id, letter_id
from mesh.core.run.effects import DeadLetter, Effect, Finish, Note, PublishTask, Schedule
from mesh.core.run.retry import EXPIRY_SLACK_MS
from mesh.core.run.state import Run, Task
from mesh.core.state.partition_state import Partition
from mesh.core.task.result import failure_event, success_event
from mesh.core.topology.model import BreakerRule, Limits, Retry, Topology
from tests.builders import AT_MS, agent, event, json, topology
from tests.core.states import run_state, task_state
from tests.playbook import audit

TYPES = ("ask", "t0", "t1", "t2", "t3")
STEPS_MAX = 3_000


def random_topology(random: Random) -> Topology:
    """Two to six agents that hear and emit at random: pipelines, fan-outs, joins and loops."""
    limits = Limits(
        depth_max=random.randint(2, 8),
        tasks_max=random.randint(3, 40),
        fanout_max=random.randint(1, 4),
        visits_max=random.randint(1, 4),
        deadline_ms=random.choice([1_000, 60_000]),
        payload_bytes_max=random.choice([20, 1_000]),
        state_bytes_max=random.choice([60, 400, 10_000]),
        usd_micros_max=random.choice([None, 300]),
        tokens_max=random.choice([None, 200]),
        cascade_max=random.choice([1, 3]),
        pause_ms=5_000,
    )
    agents: dict[str, Any] = {}
    for n in range(random.randint(2, 6)):
        heard = random.sample(TYPES, random.randint(1, 3)) if n else ["ask"]
        emitted = random.sample(TYPES[1:], random.randint(0, 3))
        arrows = random.choice([" | ", " & "]).join(heard) + " -> " + ", ".join(emitted)
        agents[f"a{n}"] = agent(
            arrows,
            retry=Retry(attempts_max=random.randint(1, 3), first_ms=random.choice([10, 900])),
            reserve_usd_micros=random.choice([0, 40]),
            reserve_tokens=random.choice([0, 25]),
            visits_max=random.choice([None, None, 2]),
            fallback=tuple(random.sample(["a0", "a1", "spare"], random.choice([0, 0, 1, 2]))),
            breaker=random.choice([None, None, BreakerRule(2, 400)]),
        )
    agents["spare"] = agent("-> t3", fallback=("a0",), breaker=BreakerRule(1, 2_000))
    return topology(limits, comes_in=["ask"], leaves=random.sample(TYPES, 2), **agents)


class World:
    """See the module. `inbox` is what was folded, in order; `effects` what followed, record by record."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.topology = random_topology(self.random)
        self.state = Partition(self.topology, number=0, partitions=1)
        self.at_ms = AT_MS
        self.inbox: list[StoredRecord] = []
        self.effects: list[list[Effect]] = []
        self.flying: list[Event] = []
        """On their way to the inbox, in no order."""
        self.timers: list[Schedule] = []
        self.arrived: dict[str, str] = {}
        """What arrived once, by its content → what followed."""
        self.endings: Counter[tuple[str, int]] = Counter()
        """By run and generation."""
        self.attempts: Counter[tuple[str, int]] = Counter()
        self.made: set[str] = set()
        """Ids of tasks, whether they were ever handed to an agent or waited in vain."""
        self.spent: dict[str, list[int]] = {}
        self.transitions: set[tuple[str, str, str, str]] = set()
        """run or task, state, kind of event, next state."""

    def live(self) -> None:
        """Some requests and all that follows, until nothing is on its way and no timer is left."""
        for n in range(self.random.randint(1, 6)):
            run_id = f"run-{self.random.randint(1, 3)}"
            self.flying.append(event(id=f"r{n}", run_id=run_id, data=json({"n": n}), expiry_ms=self._expiry()))
        for _ in range(STEPS_MAX):
            if self.flying and self.random.random() < 0.9:
                self._deliver(self.flying.pop(self.random.randrange(len(self.flying))))
            elif self.timers:
                self._fire(self.timers.pop(self.random.randrange(len(self.timers))))
            elif not self.flying:
                break
        else:
            raise AssertionError(f"not at rest after {STEPS_MAX} steps")
        assert not self.state.runs, "a run that nothing can wake any more is still open"

    def _expiry(self) -> int | None:
        return self.random.choice([None, None, None, AT_MS - 1, AT_MS + 500])

    def _fire(self, timer: Schedule) -> None:
        """A timer may fire early, on time or late."""
        self.at_ms = max(self.at_ms, timer.due_ms + self.random.choice([-1, 0, 0, 700]))
        fields = {"id": timer.timer_id, "task_id": timer.task_id, "attempt": timer.attempt or 1}
        self._deliver(event(DUE, type="mesh.timer", run_id=timer.run_id, **fields))

    def _deliver(self, sent: Event) -> None:
        self.at_ms += self.random.choice([0, 1, 30])
        offset = len(self.inbox)
        sent = replace(sent, at_ms=self.at_ms)
        record = StoredRecord("mesh.inbox", 0, offset, self.at_ms, sent.run_id.encode(), sent.data, event_headers(sent))
        ended = self.state.ended.get(sent.run_id)
        before = self.state.runs.get(sent.run_id) if ended is None else ended.run
        self._charge(sent, before)
        effects = self.state.step(record)
        self.inbox.append(record)
        self.effects.append(effects)
        after = self.state.runs.get(sent.run_id) or next((e.run for e in effects if isinstance(e, Finish)), None)
        if after is not None:
            audit(after, self.topology)
            self._watch(sent.kind, before, after)
        self._repeat(sent, effects)
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, PublishTask):
            self.attempts[effect.event.task_id, effect.event.attempt] += 1
            self.made.add(effect.event.task_id)
            self.flying.extend(self._answers(effect.event))
            if self.random.random() < 0.05:
                self.flying.extend(self._intervene(effect.event.run_id))
        elif isinstance(effect, Schedule):
            self.timers.append(effect)
        elif isinstance(effect, Finish):
            self.endings[effect.run.id, effect.run.trouble.generation] += 1
            if self.random.random() < 0.2:
                self.flying.append(event(CANCELLED, id="c1", run_id=effect.run.id))
            for task in effect.run.trouble.dead:
                if self.random.random() < 0.5:
                    self.flying.append(self._redrive(effect.run, task))
            if effect.run.refusals and self.random.random() < 0.2:
                self.flying.append(self._redrive_hop(effect.run))

    def _redrive(self, run: Run, task: Task) -> Event:
        """Redrive a task that failed for good, at times without the name of its task."""
        task_id = self.random.choice([task.id, task.id, task.id, ""])
        fields = {"task_id": task_id, "agent": task.agent, "data": json("again"), "id": f"{failure_id(run, task)}:r1"}
        return event(REDRIVEN, run_id=run.id, **fields)

    def _redrive_hop(self, run: Run) -> Event:
        """Redrive a refused hop, at times for the second time."""
        number = self.random.randint(1, len(run.refusals))
        agent = run.refusals[number - 1].agent or self.random.choice(list(self.topology.agents))
        fields = {"agent": agent, "id": f"{letter_id(run.id, number)}:r{self.random.randint(1, 2)}"}
        return event(REDRIVEN, run_id=run.id, data=json("again"), **fields)

    def _intervene(self, run_id: str) -> list[Event]:
        """Pause a run, and most often resume it."""
        paused = event(PAUSED, id="p", run_id=run_id, subject="look")
        return [paused, event(RESUMED, id="u", run_id=run_id)][: self.random.choice([1, 2, 2])]

    def _answers(self, task: Event) -> list[Event]:
        """Return the answers of an agent: mostly valid ones, at times repeated, forged or missing ones."""
        chance = self.random.random()
        usage = self.random.choice([None, NO_USAGE, Usage(self.random.randint(0, 60), self.random.randint(0, 30))])
        if chance < 0.05:
            return []
        if chance < 0.25:
            code = self.random.choice(["boom", "boom", "boom", "later", "expired", "rejected"])
            fault = Fault(code, "it broke", retryable=self.random.random() < 0.8, retry_after_ms=300)
            answer = failure_event(task, fault, usage)
        else:
            emits = self.topology.agents[task.agent].emits or TYPES[:1]
            declared = [self.random.choice(emits) for _ in range(self.random.randint(0, 3))]
            parts = [Part(type, json("x" * self.random.randint(0, 25))) for type in declared]
            answer = success_event(task, parts, usage)
        answers = [answer] * self.random.choice([1, 1, 1, 2])
        if self.random.random() < 0.2:
            forgery = {"agent": "mallory", "attempt": 9, "task_id": "f" * 32, "kind": CANCELLED, "depth": 0}
            name = self.random.choice(list(forgery))
            answers.append(replace(answer, id=f"{answer.id}:forged", **{name: forgery[name]}))  # type: ignore[arg-type]
        return answers

    # ------------------------------------------------------------------------------------------------------ the books

    def _charge(self, sent: Event, run: Run | None) -> None:
        """The books on money and tokens, kept by another rule: what counts is charged once, what is cut off in full."""
        book = self.spent.setdefault(sent.run_id, [0, 0])
        task = None if run is None or run.ending else run.open.get(sent.task_id)
        if run is None or task is None or task.held or sent.kind not in ("succeeded", "failed"):
            return
        if (sent.agent, sent.attempt) == (task.agent, task.attempt):
            moved = run is not None and (run.trouble.paused or run.deadline_ms - sent.at_ms > EXPIRY_SLACK_MS)
            if sent.fault is not None and sent.fault.code == "expired" and not moved:
                return  # it stays open until the deadline, which charges what it had reserved
            spec = self.topology.agents[task.agent]
            usage = sent.usage or Usage(spec.reserve_usd_micros, spec.reserve_tokens)
            others = [self.topology.agents[other.agent] for id, other in run.open.items() if id != task.id]
            limits = self.topology.limits
            for n, (claim, limit, own, reserved) in enumerate(
                (
                    (usage.usd_micros, limits.usd_micros_max, spec.reserve_usd_micros, "reserve_usd_micros"),
                    (usage.tokens, limits.tokens_max, spec.reserve_tokens, "reserve_tokens"),
                )
            ):
                left = claim if limit is None else limit - book[n] - sum(getattr(other, reserved) for other in others)
                book[n] += min(claim, max(left, own))

    def _watch(self, kind: str, before: Run | None, after: Run) -> None:
        self.made.update(after.open)
        if before == after:
            return
        self.transitions.add(("run", run_state(before), kind, run_state(after)))
        old: dict[str, Task] = {} if before is None or before.ending else before.open
        for id in {*old, *after.open}:
            was = task_state(before, id) if id in old else "(none)"
            now = task_state(after, id)
            if was != now:
                self.transitions.add(("task", was, kind, now))
        if after.ending:
            cut_off = [self.topology.agents[task.agent] for task in after.open.values() if not task.held]
            book = self.spent[after.id]
            book[0] += sum(spec.reserve_usd_micros for spec in cut_off)
            book[1] += sum(spec.reserve_tokens for spec in cut_off)
            assert [after.usd_micros, after.tokens] == book
            assert after.tasks <= len(self.made)

    def _repeat(self, sent: Event, effects: list[Effect]) -> None:
        """A request or an answer that arrives a second time does nothing: it is noted, or is the same dead letter."""
        if sent.kind not in ("requested", "succeeded", "failed"):
            return
        content = repr(replace(sent, at_ms=0, time=""))
        letters = repr([effect.id for effect in effects if isinstance(effect, DeadLetter)])
        if content in self.arrived:
            assert all(isinstance(effect, Note | DeadLetter) for effect in effects), effects
            assert letters in ("[]", self.arrived[content]) or sent.kind == "requested"
        if not any(isinstance(effect, Note) and effect.code == "expired" for effect in effects):
            self.arrived[content] = letters  # a task left open for the deadline is tried again if a pause moves that


def read_all(inbox: list[StoredRecord]) -> list[Event]:
    """The events of the inbox."""
    return [found for found in map(read_event, inbox) if isinstance(found, Event)]
