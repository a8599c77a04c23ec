"""A test of `decide` as a script: what happens, and what is wanted then.

    play = Playbook(topology(plan="ask -> plan.ready", write="plan.ready -> draft"))
    play.on(requested(),                    task("plan"))
    play.on(succeeded("plan", "plan.ready"), task("write", path="plan > write"))
    play.on(succeeded("write", "draft"),    leaves("draft"), ended("completed"))

Agents answer the oldest task of theirs that has no answer yet. The timer of the deadline, which every run that stays
open gets, is left out unless a line names it. Each step is also decided a second time and audited: same answer, the
run that was handed in unchanged, reservations and bytes those of what is held.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from mesh.core.protocol.event import CANCELLED, DUE, NO_USAGE, REDRIVEN, REQUESTED, RESUMED, Event, Fault, Part, Usage
from mesh.core.run.circuit_breaker import Breaker, after_answer, after_dispatch
from mesh.core.run.dead_letter import failure_id, letter_id
from mesh.core.run.decide import decide
from mesh.core.run.effects import (
    Adopt,
    BreakerTransition,
    DeadLetter,
    Effect,
    Finish,
    Note,
    PublishEvent,
    PublishTask,
    Schedule,
)
from mesh.core.run.state import Run
from mesh.core.task.result import failure_event as failure
from mesh.core.task.result import success_event as success
from mesh.core.topology.model import Topology
from tests.builders import AT_MS, event, json

Move = Callable[["Playbook"], Event]


@dataclass
class Wanted:
    """One line of what is expected: how an effect begins when it is shown, and what else holds of it."""

    line: str
    holds: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.line + "".join(f" {name}={value!r}" for name, value in self.holds.items())

    def fits(self, effect: Effect) -> bool:
        """Whether the effect is as expected."""
        return shown(effect) == self.line and all(seen(effect, n) == value for n, value in self.holds.items())


class Playbook:
    """See the module."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.run: Run | None = None
        self.at_ms = AT_MS
        self.unanswered: list[Event] = []
        """Attempts that were published, oldest first."""
        self.effects: list[Effect] = []
        """Those of the last step."""
        self.last: Event | None = None
        self.breakers: dict[str, Breaker] = {}

    def let(self, *moves: Move) -> "Playbook":
        """Let things happen, whatever is wanted then."""
        for move in moves:
            self._decide(move(self))
        return self

    def on(self, move: Move, *wanted: Wanted) -> "Playbook":
        """Let something happen and compare what is wanted then."""
        return self.take(move(self), *wanted)

    def again(self, *wanted: Wanted) -> "Playbook":
        """The last event once more."""
        assert self.last is not None, "nothing has happened yet"
        return self.take(self.last, *wanted)

    def take(self, happened: Event, *wanted: Wanted) -> "Playbook":
        """Decide an event that is there already."""
        opening = self.run is None
        self._decide(happened)
        named = any(want.line.startswith("deadline ") for want in wanted)
        compared = [e for e in self.effects if named or not (opening and shown(e).startswith("deadline "))]
        lines = "\n  ".join(told(e, *wanted[n : n + 1]) for n, e in enumerate(compared)) or "nothing"
        expected = "\n  ".join(map(str, wanted)) or "nothing"
        fits = len(compared) == len(wanted) and all(w.fits(e) for w, e in zip(wanted, compared, strict=True))
        assert fits, f"on {happened.kind} {happened.type}\nexpected\n  {expected}\nbut got\n  {lines}"
        return self

    def _decide(self, happened: Event) -> None:
        before = repr(self.run)
        breakers = after_answer(self.breakers, self.run, happened, self.topology)
        run, effects = decide(self.run, happened, self.topology, breakers)
        assert repr(self.run) == before, f"decide changed the run it was given, on {happened}"
        again = decide(self.run, happened, self.topology, breakers)
        assert again == (run, effects), f"another answer, asked again: {happened}"
        if run is not None:
            audit(run, self.topology)
        self.run, self.effects, self.last, self.breakers = run, effects, happened, breakers
        sent = [effect.event for effect in effects if isinstance(effect, PublishTask)]
        self.unanswered.extend(sent)
        for task in sent:
            self.breakers = after_dispatch(self.breakers, task.agent, self.topology, happened.at_ms)

    @property
    def state(self) -> Run:
        """The run, which is there."""
        assert self.run is not None, "no run was opened"
        return self.run

    def attempt(self, agent: str, nth: int = 0) -> Event:
        """The oldest (or nth) unanswered task of an agent; it counts as answered from now on."""
        mine = [task for task in self.unanswered if task.agent == agent]
        assert len(mine) > nth, f"{agent} has {len(mine)} unanswered tasks"
        self.unanswered.remove(mine[nth])
        return mine[nth]


def audit(run: Run, topology: Topology) -> None:
    """Check the laws of every run."""
    held = sum(len(task.held.data) for task in run.open.values() if task.held)
    joined = sum(len(a.data) for slots in run.joins.values() for s in slots.values() for a in s.inputs.values())
    kept = sum(len(result.data) for result in run.results) + sum(len(draft.data) for draft in run.drafts)
    assert run.state_bytes == held + joined + kept
    assert run.state_bytes <= topology.limits.state_bytes_max
    specs = [] if run.ending else [topology.agents[task.agent] for task in run.open.values()]
    assert run.reserved_usd_micros == sum(spec.reserve_usd_micros for spec in specs)
    assert run.reserved_tokens == sum(spec.reserve_tokens for spec in specs)
    assert run.tasks <= topology.limits.tasks_max
    assert all(task.depth == len(task.path) <= topology.limits.depth_max for task in run.open.values())
    assert all(task.path[-1] == task.agent and task.id == id for id, task in run.open.items())
    assert bool(run.open) or run.ending, "a run with nothing open has ended"


# ------------------------------------------------------------------------------------------------------ what happens


def requested(type: str = "ask", payload: Any = None, *, id: str = "r1", after_ms: int = 0, **fields: Any) -> Move:
    """A request."""

    def move(play: Playbook) -> Event:
        play.at_ms += after_ms
        data = json({} if payload is None else payload)
        return event(REQUESTED, **{"id": id, "type": type, "data": data, "at_ms": play.at_ms, **fields})

    return move


def succeeded(
    agent: str,
    /,
    *emitted: str | tuple[str, Any],
    nth: int = 0,
    usage: Usage | None = NO_USAGE,
    after_ms: int = 0,
    **claims: Any,
) -> Move:
    """An agent answers with these types, or (type, payload). `claims` replace fields of its message."""

    def move(play: Playbook) -> Event:
        play.at_ms += after_ms
        parts = [Part(*((e, b"{}") if isinstance(e, str) else (e[0], json(e[1])))) for e in emitted]
        answer = success(play.attempt(agent, nth), parts, usage)
        return replace(answer, **{"at_ms": play.at_ms, **claims})

    return move


def failed(
    agent: str,
    code: str = "boom",
    /,
    *,
    nth: int = 0,
    retryable: bool = True,
    usage: Usage | None = NO_USAGE,
    after_ms: int = 0,
    wait_ms: int | None = None,
    **claims: Any,
) -> Move:
    """An agent could not; with code `later` it wants to be asked again after `wait_ms`."""

    def move(play: Playbook) -> Event:
        play.at_ms += after_ms
        answer = failure(play.attempt(agent, nth), _fault(code, agent, retryable, wait_ms), usage)
        return replace(answer, **{"at_ms": play.at_ms, **claims})

    return move


def _fault(code: str, agent: str, retryable: bool, wait_ms: int | None) -> Fault:
    return Fault(code, f"{agent}: {code}", retryable=retryable, retry_after_ms=wait_ms or 0)


def due(agent: str = "", /, *, early_ms: int = 0, **claims: Any) -> Move:
    """The timer of an agent's waiting task fires, or without an agent that of the deadline; time moves there."""

    def move(play: Playbook) -> Event:
        assert play.run is not None, "no run, no timer"
        task = next((t for t in play.run.open.values() if t.agent == agent and t.held), None)
        at_ms = (play.run.deadline_ms if task is None or task.held is None else task.held.due_ms) - early_ms
        play.at_ms = max(play.at_ms, at_ms)
        timer: dict[str, Any] = {"id": f"{play.run.id}:deadline"}
        if task is not None:
            timer = {"id": f"{task.id}:{task.attempt}:due", "task_id": task.id, "attempt": task.attempt}
        return event(DUE, **{"type": "mesh.timer", "at_ms": play.at_ms, **timer, **claims})

    return move


def cancelled() -> Move:
    """Cancel the run, as an operator."""
    return lambda play: event(CANCELLED, id="c1", type="mesh.cancel", at_ms=play.at_ms)


def resumed(*, after_ms: int = 0) -> Move:
    """Resume the run, as an operator."""

    def move(play: Playbook) -> Event:
        play.at_ms += after_ms
        return event(RESUMED, id="u1", type="mesh.resume", at_ms=play.at_ms)

    return move


def redriven(agent: str = "", payload: Any = None, *, n: int = 1, refusal: int = 0, **claims: Any) -> Move:
    """A dead letter is sent again, for the `n`th time: that of the last failure (of this agent), else of a refusal.

    `refusal`: its number, from 1; 0: the last one.
    """

    def move(play: Playbook) -> Event:
        dead = [task for task in play.state.trouble.dead if task.agent == (agent or task.agent)]
        if dead and not refusal:
            letter, fields = failure_id(play.state, dead[-1]), {"task_id": dead[-1].id, "agent": dead[-1].agent}
        else:
            letter, fields = letter_id(play.state.id, refusal or play.state.refused), {"agent": agent}
        data = json({} if payload is None else payload)
        return event(
            REDRIVEN, **{"id": f"{letter}:r{n}", "type": "ask", "data": data, "at_ms": play.at_ms, **fields, **claims}
        )

    return move


def happens(kind: str, **fields: Any) -> Move:
    """Any event whatever."""
    return lambda play: event(kind, **{"at_ms": play.at_ms, **fields})


# ---------------------------------------------------------------------------------------------------- what is wanted


def task(agent: str, **holds: Any) -> Wanted:
    """A task is published. Fields of its event, `key` of the record, and `path="plan > write"`."""
    return Wanted(f"task {agent}", holds)


def leaves(type: str, **holds: Any) -> Wanted:
    """An event leaves the mesh."""
    return Wanted(f"leaves {type}", holds)


def retry(**holds: Any) -> Wanted:
    """A timer for a next attempt: `attempt`, `due_ms`."""
    return Wanted("retry timer", holds)


def deadline(at_ms: int) -> Wanted:
    """The timer of the deadline."""
    return Wanted(f"deadline at {at_ms - AT_MS:+} ms")


def dead(code: str, **holds: Any) -> Wanted:
    """A dead letter: `message`, `agent`, `value`, `attempts`."""
    return Wanted(f"dead {code}", holds)


def note(code: str, **holds: Any) -> Wanted:
    """Expect no effect but a note with the reason."""
    return Wanted(f"note {code}", holds)


def ended(ending: str, **holds: Any) -> Wanted:
    """The run ended: `results` and `refusals` as lists of types and codes, `starved`, `failures` as agents, `tasks`,
    `unrouted` and `overspent` as sentences."""
    return Wanted(f"ended {ending}", holds)


def shown(effect: Effect) -> str:
    """An effect in two words."""
    match effect:
        case PublishTask():
            return f"task {effect.event.agent}"
        case PublishEvent():
            return f"leaves {effect.event.type}"
        case Schedule(task_id=""):
            return f"deadline at {effect.due_ms - AT_MS:+} ms"
        case Schedule():
            return "retry timer"
        case DeadLetter():
            return f"dead {effect.code}"
        case Finish():
            return f"ended {effect.run.ending}"
        case Adopt():
            return f"adopted {effect.topology}"
        case BreakerTransition():
            return f"turn {effect.agent} {effect.state}"
        case Note():
            return f"note {effect.code}"


def seen(effect: Effect, name: str) -> Any:
    """One thing about an effect, in the form in which tests write it."""
    thing: Any = effect.run if isinstance(effect, Finish) else effect
    if isinstance(effect, PublishTask | PublishEvent) and name not in ("key", "topic"):
        thing = effect.event
    value = getattr(thing, name)
    match name:
        case "path":
            return " > ".join(value)
        case "results":
            return [result.type for result in value]
        case "refusals":
            return [refusal.code for refusal in value]
        case "failures":
            return [failure.agent for failure in value]
        case "starved" | "overspent":
            return list(value)
        case "unrouted":
            return [event.message for event in value]
    return value


def told(effect: Effect, wanted: Wanted | None = None) -> str:
    """An effect as a failed comparison tells it: with what its line asks for, and the sentence that it brings."""
    expected = wanted.holds if wanted and wanted.line == shown(effect) else {}
    line = str(Wanted(shown(effect), {name: seen(effect, name) for name in expected}))
    return f"{line}   ({effect.message})" if isinstance(effect, DeadLetter | Note) else line
