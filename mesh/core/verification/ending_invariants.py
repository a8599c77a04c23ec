"""Check that the outcome of a run follows from the run's records, with accounts of refusals.

    endings = EndingInvariants(topologies, remembered_offsets, checked)
    violations += endings.follow(event, where, offset, before, now, effects)

I15: a redrive takes back the refusal that its dead letter names, and each refusal is taken back once. So the outcome
counts the refusals of the run without those whose letter was sent again.

I16: a run ends as its facts say, and every unrouted event is one of them. An event is routed when its type leaves the
mesh or a join consumes it. It is also routed when it is a task now, when it was refused, or when an agent ignores some.
I17: more was used than the run might exactly where the outcome says so, and such a run is not completed.
I18: a join that is named as starved may still be wanted: its `when` is not false for the events that came.
I19: the last input of an agent on a loop that a limit refused is in the outcome, until it is redriven.
I20: an input of a join is kept for it, or named as unrouted. At the end of a run a join that holds an input and did not
fire is named as starved, or its `when` is false. The inputs of each branch whose `when` is false went elsewhere, are
named as unrouted, or are ignored; and no others are named at the end.

Accounts are kept for runs with refusals, also after their end, because a redrive may open them again.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final

from mesh.core.expression.partial_evaluation import is_refuted, missing_paths
from mesh.core.protocol.event import BATCH, REDRIVEN, REQUESTED, SUCCEEDED, Event, parse_json
from mesh.core.publishing.effect_records import outcome_body
from mesh.core.run.effects import DeadLetter, Effect, Finish, Note, PublishTask, Schedule
from mesh.core.run.state import COMPLETED, FAILED, PARTIAL, STOPPED, Branch, Run, Slots
from mesh.core.run.unrouted import KEPT_MAX
from mesh.core.topology.model import AgentSpec, Topology
from mesh.core.verification.report import Violation

LOOP_ENDS: Final = frozenset({"depth", "cycle", "visits", "budget_usd", "budget_tokens"})
"""Codes of refusals of one hop."""
_WITH_INPUTS: Final = frozenset({REQUESTED, SUCCEEDED})
_FACTS: Final = ("failures", "refused", "unrouted", "starved", "overspent")
"""Fields of an outcome that keep a run from being completed."""


@dataclass(slots=True)
class Refusals:
    """Refusals of one run."""

    letters: set[str] = field(default_factory=set)
    """Ids of their dead letters."""
    taken_back: set[str] = field(default_factory=set)
    """Letters among them that a redrive sent again."""
    last: dict[str, str] = field(default_factory=dict)
    """Agent on a loop → the letter of its input that was refused last."""
    stands_for: dict[str, str] = field(default_factory=dict)
    """Letter of a redrive that was refused → the letter that this redrive sent."""
    offset: int = 0


class EndingInvariants:
    """Checks endings; see the module."""

    def __init__(self, topologies: Mapping[str, Topology], remembered_offsets: int, checked: Counter[str]) -> None:
        """`topologies`: by digest. `remembered_offsets`: span in which the fold remembers ended runs. `checked`: counts
        checks, by invariant."""
        self._topologies = topologies
        self._remembered = remembered_offsets
        self._checked = checked
        self._refused: dict[str, Refusals] = {}
        self._joined: dict[str, set[str]] = {}
        """Digest of a topology → the types that joins take."""

    def follow(
        self, event: Event, where: str, offset: int, before: Run | None, now: Run | None, effects: Sequence[Effect]
    ) -> Iterator[Violation]:
        """Update the accounts with one record of a run; yield violations. `now`: state after it, or at the end."""
        refused = self._refused.pop(event.run_id, None) if self._refused else None
        if refused is None and now is not None and now.refused and event.kind != REDRIVEN:
            refused = Refusals() if before is None or not before.refused else None
        if refused is not None:
            refused.offset = offset
            self._refused[event.run_id] = refused
            _note(refused, event, now, effects)
        topology = None if now is None else self._topologies.get(now.topology)
        if refused is not None and topology is not None:
            _note_loops(refused, effects, topology)
        if (
            now is not None
            and topology is not None
            and event.kind in _WITH_INPUTS
            and not self._is_taken(event, effects, topology)
            and _is_consumed(event, before, now)
        ):
            yield from self._check_inputs(event, where, before, now, effects, topology)
        finish = finish_in(effects)
        if finish is not None:
            body = outcome_body(finish.run)
            if topology is not None:
                yield from self._facts(finish.run, body, where, topology)
                yield from self._joins(finish.run, where, topology)
                yield from self._check_declined(finish.run, where, topology)
            if refused is not None or not finish.run.refused:
                yield from self._check_finished(finish.run, body, where, refused or Refusals())
        while self._refused and self._is_forgotten(next(iter(self._refused)), offset):
            del self._refused[next(iter(self._refused))]

    def _is_forgotten(self, run_id: str, offset: int) -> bool:
        return self._refused[run_id].offset < offset - self._remembered

    def _check_finished(self, run: Run, body: Mapping[str, Any], where: str, refused: Refusals) -> Iterator[Violation]:
        self._checked["I15"] += 1
        self._checked["I19"] += len(refused.last)
        kept = {draft.letter for draft in run.drafts}
        for agent, letter in refused.last.items():
            if letter not in kept and letter not in refused.taken_back:
                what = f"the outcome lacks the last input of {agent}, on a loop, that was refused"
                yield Violation("I19", where, what, f"that of dead letter {letter}", run_id=run.id)
        stand, said = run.refused - len(refused.taken_back), body["refused"]
        if said != stand:
            what = "the outcome counts other refusals than those that no redrive took back"
            yield Violation("I15", where, what, str(stand), str(said), run.id)

    def _check_inputs(
        self, event: Event, where: str, before: Run | None, now: Run, effects: Sequence[Effect], topology: Topology
    ) -> Iterator[Violation]:
        """I16 and I20 of one consumed record. Refused hops have their own facts."""
        noted = False
        for effect in effects:
            if effect.__class__ is DeadLetter:
                return
            noted = noted or effect.__class__ is Note
        try:
            types = [part.type for part in event.parts()]
        except ValueError:
            return
        if not noted:
            yield from self._check_taken(event, where, types, before, now, effects, topology)
        if not self._joined_types(topology).isdisjoint(types):
            yield from self._check_kept(where, types, before, now, topology)

    def _joined_types(self, topology: Topology) -> set[str]:
        joined = self._joined.get(topology.digest)
        if joined is None:
            joined = {type for type, rows in topology.rows.items() if any(row.join for row in rows)}
            self._joined[topology.digest] = joined
        return joined

    def _is_taken(self, event: Event, effects: Sequence[Effect], topology: Topology) -> bool:
        """Return whether a single event left the mesh or became a task, and no join takes it. Most do."""
        type = event.type
        if event.content_type == BATCH or type in self._joined_types(topology):
            return False
        if type in topology.egress:
            return True
        return any(isinstance(effect, PublishTask) and effect.event.type == type for effect in effects)

    def _check_taken(
        self,
        event: Event,
        where: str,
        types: Sequence[str],
        before: Run | None,
        now: Run,
        effects: Sequence[Effect],
        topology: Topology,
    ) -> Iterator[Violation]:
        """I16 of one record: events without an effect are named as unrouted."""
        left = set(types) - topology.egress.keys()
        for effect in effects:
            if isinstance(effect, PublishTask):
                left.discard(effect.event.type)
        if not left:
            return
        left -= {task.held.type for task in now.open.values() if task.held is not None and task.cause_id == event.id}
        if now.unrouted:
            reported = _times(now)
            reported.subtract(_times(before))
            left -= {type for type, times in reported.items() if times > 0 or len(now.unrouted) == KEPT_MAX}
        for type in left:
            self._checked["I16"] += 1
            rows = topology.rows.get(type, ())
            if not any(row.join or row.agent.ignores for row in rows):
                what = f"nothing took {type}, which is not named as unrouted"
                yield Violation("I16", where, what, "a task, an egress topic, a join, or the fact", run_id=now.id)

    def _check_kept(
        self, where: str, types: Sequence[str], before: Run | None, now: Run, topology: Topology
    ) -> Iterator[Violation]:
        """I20 of one record: inputs for joins that they do not hold now are named as unrouted.

        A join on a cycle gives its inputs away, so they cannot be counted.
        """
        received = Counter(types)
        reported = _times(now)
        reported.subtract(_times(before))
        for type, times in received.items():
            specs = [row.agent for row in topology.rows.get(type, ()) if row.join]
            names = [spec.name for spec in specs if not spec.cyclic and not spec.ignores]
            lost = sum(times - _held_count(now, name, type) + _held_count(before, name, type) for name in names)
            if names:
                self._checked["I20"] += 1
            if reported[type] < lost and len(now.unrouted) < KEPT_MAX:
                what = f"a join did not take {type}, which is not named as unrouted"
                yield Violation("I20", where, what, f"{lost} times", f"{reported[type]} times", now.id)

    def _joins(self, run: Run, where: str, topology: Topology) -> Iterator[Violation]:
        """I20 of an ending. A run that was cut short has open tasks: its joins might have got more."""
        for name, slots in {} if run.open else run.joins.items():
            self._checked["I20"] += 1
            spec = topology.agents[name]
            if any(sentence.startswith(f"{name}:") for sentence in run.starved):
                continue
            for branch, found in _halves(slots):
                if _serves_others(branch, slots):
                    continue
                if spec.when is None or not is_refuted(spec.when, found):
                    what = f"join {name} holds {', '.join(found)}, did not fire and is not named as starved"
                    yield Violation("I20", where, what, run_id=run.id)

    def _check_declined(self, run: Run, where: str, topology: Topology) -> Iterator[Violation]:
        """I20 of an ending: inputs lost by joins whose `when` is false. Not checked if a join lies on a cycle."""
        if run.open or not (run.joins or run.unrouted) or any(topology.agents[name].cyclic for name in run.joins):
            return
        used = {name: set(_used_inputs(topology.agents[name], slots)) for name, slots in run.joins.items()}
        wanted: Counter[str] = Counter()
        for name, slots in run.joins.items():
            spec = topology.agents[name]
            for branch in slots if spec.when is not None else ():
                lost = _lost(spec, slots, branch, used, topology)
                if lost:
                    wanted[lost] += 1
        reported: Counter[str] = Counter()
        for fact in run.unrouted:
            reported[fact.type] += fact.times if fact.closing else 0
        if +reported != wanted and len(run.unrouted) < KEPT_MAX:
            what = "what joins lost whose `when` is false is not what the outcome names as unrouted"
            yield Violation("I20", where, what, _counts(wanted), _counts(+reported), run.id)

    def _facts(self, run: Run, body: Mapping[str, Any], where: str, topology: Topology) -> Iterator[Violation]:
        """I16 to I18 of an ending."""
        for invariant in ("I16", "I17", "I18"):
            self._checked[invariant] += 1
        lost = body["refused"] > 0 or bool(body["unrouted"])
        short = lost or bool(body["starved"]) or bool(body["overspent"])
        fits = {
            COMPLETED: not body["failures"] and not short,
            PARTIAL: not body["failures"] and short and not (lost and not body["results"]),
            STOPPED: lost,
            FAILED: bool(body["failures"]),
        }
        if not fits.get(run.ending, True):
            reported = ", ".join(name for name in _FACTS if body[name]) or "none"
            yield Violation("I16", where, f"the run ended {run.ending}", "the ending of its facts", reported, run.id)
        limits = topology.limits
        usd_micros, tokens = run.usd_micros + run.beyond.usd_micros, run.tokens + run.beyond.tokens
        pairs = ((usd_micros, limits.usd_micros_max), (tokens, limits.tokens_max))
        over = any(limit is not None and used > limit for used, limit in pairs)
        if over is not bool(body["overspent"]):
            got = f"{usd_micros} millionths of a dollar and {tokens} tokens used"
            yield Violation("I17", where, "the outcome is wrong about the budget", "what was used", got, run.id)
        for sentence in run.starved:
            name = sentence.partition(":")[0]
            when = topology.agents[name].when
            if when is not None and all(is_refuted(when, found) for _, found in _halves(run.joins[name])):
                what = f"join {name} is named as starved, and its `when` is false whatever comes"
                yield Violation("I18", where, what, run_id=run.id)


def finish_in(effects: Sequence[Effect]) -> Finish | None:
    """Return the ending among effects, if there is one."""
    for effect in effects:
        if isinstance(effect, Finish):
            return effect
    return None


def _held_count(run: Run | None, name: str, type: str) -> int:
    """Count the inputs of a type that a join holds."""
    slots = {} if run is None else run.joins.get(name, {})
    return sum(type in slot.inputs for slot in slots.values())


def _counts(times: Mapping[str, int]) -> str:
    return ", ".join(f"{type} {n} times" for type, n in sorted(times.items())) or "nothing"


def _branch_inputs(slots: Slots, branch: Branch) -> dict[str, tuple[Branch, Any]]:
    """Return the inputs of a branch of a join: type → the branch that holds it, and the payload."""
    found: dict[str, tuple[Branch, Any]] = {}
    for length in range(len(branch) + 1):  # what is nearer stands
        at = branch[:length]
        inputs = slots[at].inputs if at in slots else {}
        found |= {type: (at, parse_json(arrival.data)) for type, arrival in inputs.items()}
    return found


def _is_refused(spec: AgentSpec, slots: Slots, branch: Branch) -> bool:
    """Return whether the `when` of a join is false in a branch; for good, if inputs are missing."""
    payloads = {type: payload for type, (_, payload) in _branch_inputs(slots, branch).items()}
    if spec.when is None:
        return False
    return not spec.when.holds(payloads) if slots[branch].fired else is_refuted(spec.when, payloads)


def _is_idle(slots: Slots, branch: Branch) -> bool:
    """Return whether a branch did not fire, and branches below have all its inputs."""
    if slots[branch].fired:
        return False
    below = [
        _branch_inputs(slots, other) for other in slots if len(other) > len(branch) and other[: len(branch)] == branch
    ]
    return all(any(seen[type][0] == branch for seen in below) for type in slots[branch].inputs)


def _used_inputs(spec: AgentSpec, slots: Slots) -> Iterator[tuple[str, Branch]]:
    """Yield the inputs of a join that became a task or may still be wanted: type and the branch that holds it."""
    for branch in slots:
        if not _is_refused(spec, slots, branch) and not _is_idle(slots, branch):
            yield from ((type, at) for type, (at, _) in _branch_inputs(slots, branch).items())


def _lost(
    spec: AgentSpec, slots: Slots, branch: Branch, used: Mapping[str, Set[tuple[str, Branch]]], topology: Topology
) -> str:
    """Return the event type that must be named when the `when` of a join is false in a branch; "" if there is none."""
    if spec.when is None or not _is_refused(spec, slots, branch) or _is_idle(slots, branch):
        return ""
    seen = _branch_inputs(slots, branch)
    payloads = {type: payload for type, (_, payload) in seen.items()}
    if spec.ignores and not missing_paths(spec.when, payloads):
        return ""
    got = [type for type in spec.on if type in seen]
    read = [type for type in got if type in spec.when.bound] or got
    for type in read:
        at, payload = seen[type]
        others = [row for row in topology.rows.get(type, ()) if row.agent.name != spec.name]
        joins = [used.get(row.agent.name, ()) for row in others if row.join]
        conditions = [row.agent.when for row in others if not row.join]
        if type in topology.egress or any((type, at) in inputs for inputs in joins):
            return ""
        if any(when is None or when.holds({type: payload}) for when in conditions):
            return ""
    return read[0]


def _halves(slots: Slots) -> Iterator[tuple[Branch, dict[str, Any]]]:
    """Yield each branch of a join that did not fire, with its own inputs and those of the branches above."""
    for branch, slot in slots.items():
        if slot.inputs and not slot.fired:
            above = [other for at, other in slots.items() if branch[: len(at)] == at]
            yield branch, {type: parse_json(arrival.data) for one in above for type, arrival in one.inputs.items()}


def _serves_others(branch: Branch, slots: Slots) -> bool:
    """Return whether there are branches below, which may have used the inputs of this one."""
    return any(len(other) > len(branch) and other[: len(branch)] == branch for other in slots)


def _times(run: Run | None) -> Counter[str]:
    """Count the unrouted events of a run, by type."""
    found: Counter[str] = Counter()
    for fact in () if run is None else run.unrouted:
        found[fact.type] += fact.times
    return found


def _is_consumed(event: Event, before: Run | None, now: Run) -> bool:
    """Return whether the run consumed the event: a new request, or the answer of an open task."""
    if event.kind == REQUESTED:
        return before is None or event.id not in before.roots
    return before is not None and event.task_id in before.open and event.task_id not in now.open


def _note_loops(refused: Refusals, effects: Sequence[Effect], topology: Topology) -> None:
    """Note the refused inputs of agents on loops."""
    for effect in effects:
        if not isinstance(effect, DeadLetter) or effect.id not in refused.letters:
            continue
        if effect.code == "tasks":  # it refuses every hop of an answer at once, for all agents
            refused.last.clear()
        elif effect.code in LOOP_ENDS and effect.agent in topology.agents and topology.agents[effect.agent].cyclic:
            refused.last[effect.agent] = effect.id


def _note(refused: Refusals, event: Event, now: Run | None, effects: Sequence[Effect]) -> None:
    """Note the refusals by one record, and the one that it took back. A redrive of a paused run has no effect yet: its
    task is open and waits."""
    sent = event.id.rpartition(":r")[0] if event.kind == REDRIVEN else ""
    while sent in refused.stands_for:
        sent = refused.stands_for[sent]
    letters = [effect.id for effect in effects if isinstance(effect, DeadLetter) and not effect.task_id]
    goes_on = any(isinstance(effect, PublishTask | Schedule) for effect in effects)
    goes_on = goes_on or (now is not None and any(task.cause_id == event.id for task in now.open.values()))
    if sent and goes_on and sent in refused.letters:
        refused.taken_back.add(sent)
    elif sent and not goes_on:
        refused.stands_for |= dict.fromkeys(letters, sent)
        return
    refused.letters.update(letters)
