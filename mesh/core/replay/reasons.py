"""Say why each effect of a step followed: the rule of `decide` that applied, with its numbers. For display only.

The rules are those of `core.run.decide`; a sentence here names the row, limit or state that the rule read.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mesh.core.history.skipped_agents import condition_sentence, skipped_agents
from mesh.core.protocol.event import DUE, FAILED, REDRIVEN, REQUESTED, RESUMED, SUCCEEDED, Event, parse_json
from mesh.core.reason_codes import REASONS
from mesh.core.replay.steps import Step
from mesh.core.run import state
from mesh.core.run.circuit_breaker import LEFT_ALONE, open_until
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
from mesh.core.run.retry import INPUT_AT_FAULT
from mesh.core.run.routing import JOIN_TYPE
from mesh.core.run.state import Run
from mesh.core.topology.model import AgentSpec, Topology


class Consequence(NamedTuple):
    """One effect, and why it followed. `rule`: the rule that applied; `text`: what it read."""

    what: str
    """`task`, `left`, `timer`, `dead letter`, `ended`, `breaker`, `adopted`, `note`, `refused`."""
    name: str
    """Agent, event type, ending or code."""
    rule: str
    text: str
    effect: Effect | None = None


def reasons_of(step: Step) -> list[Consequence]:
    """Return the effects of a step with their reasons, then refusals that made no dead letter."""
    found = [_reason(step, effect) for effect in step.effects]
    messages = {effect.message for effect in step.effects if isinstance(effect, DeadLetter | Note)}
    for refusal in step.refusals:
        if refusal.message not in messages:
            numbers = f"; limit {refusal.limit:,}, got {refusal.actual:,}" if refusal.limit else ""
            found.append(Consequence("refused", refusal.agent, refusal.code, f"{refusal.message}{numbers}"))
    return found


def _reason(step: Step, effect: Effect) -> Consequence:
    match effect:
        case PublishTask():
            rule, text = _why_task(step, effect.event)
            return Consequence("task", effect.event.agent, rule, text, effect)
        case PublishEvent():
            return Consequence("left", effect.event.type, "egress", f"topic {effect.topic} lets it out", effect)
        case Schedule():
            rule, text = _why_timer(step, effect)
            return Consequence("timer", step.agent if effect.task_id else "deadline", rule, text, effect)
        case DeadLetter():
            return Consequence("dead letter", effect.agent or "request", effect.code, _why_dead(step, effect), effect)
        case Finish():
            return Consequence("ended", effect.run.ending, "ending", _why_ended(step, effect.run), effect)
        case BreakerTransition():
            return Consequence("breaker", effect.agent, "breaker", f"{effect.state}: {effect.why}", effect)
        case Adopt():
            return Consequence("adopted", effect.topology, "topology", f"in place of {effect.before}", effect)
        case Note():
            meaning = REASONS[effect.code].meaning if effect.code in REASONS else ""
            text = f"{effect.message} ({meaning})" if meaning and meaning not in effect.message else effect.message
            return Consequence("note", effect.code, "note", text, effect)


# ------------------------------------------------------------------------------------------------------------- tasks


def _why_task(step: Step, sent: Event) -> tuple[str, str]:
    cause, topology = step.event, step.topology
    if cause is None or topology is None:
        return "unknown", "no topology is known for this run"
    hop = f"hop {sent.depth} of {topology.limits.depth_max}"
    if cause.kind == RESUMED:
        return "resume", f"it waited while the run was paused; {hop}"
    known = None if step.before is None else step.before.open.get(sent.task_id)
    if known is not None:
        return _why_again(sent, cause, topology, known.held.due_ms if known.held else 0)
    if cause.kind == REDRIVEN:
        return "redrive", f"{cause.id} sends a dead letter again; {hop}"
    if cause.kind in (FAILED, DUE):
        return "fallback", f"{_chain(step, sent, topology)}; {hop}"
    return _why_routed(step, sent, cause, topology, hop)


def _why_again(sent: Event, cause: Event, topology: Topology, due_ms: int) -> tuple[str, str]:
    """The task was known: its next attempt, or its first one after it was held."""
    retry = topology.agents[sent.agent].retry
    late = f", {cause.at_ms - due_ms} ms after its time" if due_ms else ""
    if sent.attempt == 1:
        return "breaker", f"it was held, and its time has come{late}"
    return "retry", f"attempt {sent.attempt} of {retry.attempts_max} is due{late}"


def _chain(step: Step, sent: Event, topology: Topology) -> str:
    task = None if step.after is None else step.after.open.get(sent.task_id)
    failed = () if task is None else task.past.failed
    first = failed[0] if failed else step.agent
    chain = " > ".join((first, *topology.agents[first].fallback)) if first in topology.agents else first
    fault = None if step.event is None else step.event.fault
    why = f" ({fault.code})" if fault is not None else ""
    tries = f" after {step.event.attempt} of {_attempts(step)} attempts" if step.event is not None and fault else ""
    return f"{step.agent} failed{tries}{why}; chain {chain}"


def _why_routed(step: Step, sent: Event, cause: Event, topology: Topology, hop: str) -> tuple[str, str]:
    """The task follows from a row of the topology; a breaker may have moved it to a fallback."""
    task = None if step.after is None else step.after.open.get(sent.task_id)
    moved = task.past.failed[0] if task is not None and task.past.failed else ""
    spec = topology.agents[moved or sent.agent]
    way = ""
    if moved:
        until_ms = open_until(step.breakers, moved, cause.at_ms)
        way = f"; {moved}'s breaker is open" + (f" for {until_ms - cause.at_ms} ms more" if until_ms else "")
    when = _shown_condition(spec, sent)
    if sent.type == JOIN_TYPE:
        return "join", f"{' + '.join(spec.on)} are all there{when}{way}; {hop}"
    return ("when" if when else "route"), f"{spec.name} is on {sent.type}{when}{way}; {hop}"


def _shown_condition(spec: AgentSpec, sent: Event) -> str:
    if spec.when is None:
        return ""
    try:
        payloads: Mapping[str, Any] = {part.type: parse_json(part.data) for part in sent.parts()}
    except ValueError:
        return ""
    return f" and {condition_sentence(spec.when, payloads)}"


def _attempts(step: Step) -> int:
    spec = _spec(step)
    return 1 if spec is None else spec.retry.attempts_max


def _spec(step: Step) -> AgentSpec | None:
    return None if step.topology is None else step.topology.agents.get(step.agent)


# ------------------------------------------------------------------------------------------------------------ timers


def _why_timer(step: Step, timer: Schedule) -> tuple[str, str]:
    cause, spec, topology = step.event, _spec(step), step.topology
    wait_ms = timer.due_ms - step.at_ms
    if not timer.task_id:
        return "deadline", _why_deadline(step, wait_ms)
    if cause is None or topology is None or step.after is None:
        return "timer", f"in {wait_ms} ms"
    task = step.after.open.get(timer.task_id)
    holder = "" if task is None else task.agent
    if cause.kind != FAILED or cause.task_id != timer.task_id or spec is None:
        return "breaker", f"{holder}'s breaker is open: it is held for {wait_ms} ms"
    fault = cause.fault
    if fault is not None and fault.code in ("later", LEFT_ALONE, "expired"):
        return "later", f"{fault.code}: attempt {timer.attempt} in {wait_ms} ms; no attempt is used up"
    retry, tries = spec.retry, cause.attempt - (0 if task is None else task.past.laters)
    delay = (
        f"{retry.first_ms} ms × {retry.factor:g}^{tries - 1}, at most {retry.delay_ms_max} ms, jitter {retry.jitter:g}"
    )
    cause_text = "it failed" if fault is None else fault.code
    return "retry", f"{cause_text} on attempt {tries} of {retry.attempts_max}; again in {wait_ms} ms ({delay})"


def _why_deadline(step: Step, wait_ms: int) -> str:
    if step.kind == RESUMED:
        return f"the run was paused: its deadline moved, {wait_ms} ms are left"
    if step.topology is None or step.before is not None:
        return f"the deadline is not reached: {wait_ms} ms are left"
    limit_ms = step.topology.limits.deadline_ms
    if wait_ms < limit_ms:
        return f"the request asked for {wait_ms} ms; the limit is {limit_ms} ms"
    return f"limits.deadline is {limit_ms} ms"


# ---------------------------------------------------------------------------------------------- dead letters, endings


def _why_dead(step: Step, letter: DeadLetter) -> str:
    spec, event = _spec(step), step.event
    if not letter.task_id or event is None or event.kind != FAILED or spec is None:
        return letter.message
    fault, retry = event.fault, spec.retry
    tries = f"attempt {event.attempt} of {retry.attempts_max}"
    if fault is not None and fault.code in INPUT_AT_FAULT:
        why = "the input is at fault, so neither retry nor fallback helps"
    elif fault is not None and not fault.retryable:
        why = "it is not retryable"
    elif event.attempt < retry.attempts_max:
        named = "its `retry.final` names it" if retry.final else "a limit refused another one"
        why = named if not step.refusals else f"{step.refusals[-1].code} refused another one"
    else:
        why = "none is left"
    fallback = "no fallback" if not spec.fallback else f"fallbacks {', '.join(spec.fallback)} are used up or refused"
    ask = "" if fault is not None and fault.code in INPUT_AT_FAULT else f"; {fallback}"
    return f"{tries}, {why}{ask}: {letter.message}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else noun + 's'}"


def _why_ended(step: Step, run: Run) -> str:
    counts = {
        "failure": len(run.failures),
        "refusal": run.refused,
        "unrouted event": len(run.unrouted),
        "starved join": len(run.starved),
        "exceeded budget": len(run.overspent),
    }
    facts = ", ".join(_counted(number, name) for name, number in counts.items() if number)
    results, tasks = _counted(len(run.results), "result"), _counted(len(run.open), "task")
    if run.ending == state.CANCELLED:
        return f"an operator cancelled it with {tasks} open"
    if run.open:
        return f"the deadline passed with {tasks} open"
    why: Mapping[str, Callable[[], str]] = {
        state.COMPLETED: lambda: f"nothing is open, {results}, nothing was lost",
        state.PARTIAL: lambda: f"nothing is open, {results}, but {facts}",
        state.STOPPED: lambda: f"nothing is open, no result, and {facts}",
        state.FAILED: lambda: f"nothing is open, and {facts}",
    }
    return why[run.ending]() if run.ending in why else "nothing is open"


def skipped(step: Step) -> Iterator[Consequence]:
    """Yield the agents that got no task since their `when` was false."""
    if step.event is None or step.after is None or step.topology is None or step.kind not in (REQUESTED, SUCCEEDED):
        return
    for found in skipped_agents(step.event, step.before, step.after, step.topology):
        yield Consequence("skipped", found.agent, "when", found.reason)
