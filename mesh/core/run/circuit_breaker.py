"""Circuit breakers: no tasks go to an agent that keeps failing. Pure values, folded from the log.

closed      Tasks go to the agent. Consecutive failures are counted; a success resets the count.
open        For `open_ms` no task goes to the agent: tasks go to its fallback, or wait within their deadline.
half-open   Then one event's tasks go to the agent each `open_ms`. A success closes the breaker, a failure opens it.

The state is part of the inbox partition and follows from its records, so every owner of the partition computes the
same. A partition sees only the failures of its own runs. The worker counts the failures of all partitions
(`services.worker.breaker_gate`). It answers a task that it declines as `left_alone`, which opens the breaker here.
A partition that opens or closes a breaker reports it on mesh.control, which is relayed to all partitions (`control`).
So all partitions agree a moment later. The faults `rejected` and `schema` concern the input and are not counted.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from mesh.core.protocol.event import FAILED, SUCCEEDED, Event, Fault
from mesh.core.run.control import BREAKER, CLOSED, OPENED, Control
from mesh.core.run.effects import BreakerTransition
from mesh.core.run.state import Run
from mesh.core.topology.model import BreakerRule, Topology

COUNTED_CODES: Final = frozenset({"timed_out", "crash_loop"})
"""Final faults that count against an agent, in addition to all retryable ones."""
LEFT_ALONE: Final = "left_alone"
"""Fault of a task whose agent was not called because its breaker is open."""
UNCOUNTED_CODES: Final = frozenset({"later", "expired"})
"""Retryable faults that do not count against the agent."""


class Breaker(NamedTuple):
    """The breaker of one agent: closed while `until_ms` is 0, open before that time, half-open from then on."""

    failures: int = 0
    """Number of consecutive failures."""
    until_ms: int = 0
    shared: bool = False
    """Whether mesh.control lists the breaker as open. It closes when mesh.control no longer lists it."""


CALM: Final = Breaker()
Breakers = Mapping[str, Breaker]
"""Agent → its breaker. Closed breakers without failures are left out."""
NO_BREAKERS: Final[Breakers] = MappingProxyType({})


def open_until(breakers: Breakers, agent: str, at_ms: int) -> int:
    """Return the log time (ms) until which no task goes to an agent; 0 if a task may go there now."""
    if not breakers or (breaker := breakers.get(agent)) is None or at_ms >= breaker.until_ms:
        return 0
    return breaker.until_ms


def next_fallback(failed: tuple[str, ...], topology: Topology, breakers: Breakers, at_ms: int) -> str | None:
    """Return the next agent of the fallback chain of `failed[0]`; agents with a closed breaker are preferred."""
    left = [name for name in topology.agents[failed[0]].fallback if name not in failed]
    return next((name for name in left if not open_until(breakers, name, at_ms)), left[0] if left else None)


def after_answer(breakers: dict[str, Breaker], run: Run | None, event: Event, topology: Topology) -> dict[str, Breaker]:
    """Return the breakers after an answer. An answer that no open task waits for changes nothing."""
    rule = None if event.agent not in topology.agents else topology.agents[event.agent].breaker
    task = None if run is None else run.open.get(event.task_id)
    if rule is None or task is None or (task.agent, task.attempt) != (event.agent, event.attempt) or task.held:
        return breakers
    before = breakers.get(event.agent, CALM)
    now = next_breaker(before, rule, event, event.at_ms)
    return breakers if now == before else _with(breakers, event.agent, now)


def next_breaker(before: Breaker, rule: BreakerRule, answer: Event, at_ms: int) -> Breaker:
    """Return a breaker after an answer of its agent."""
    fault = answer.fault
    if answer.kind == SUCCEEDED:
        return CALM
    if answer.kind == FAILED and fault is not None and fault.code == LEFT_ALONE:
        until_ms = at_ms + max(1, min(fault.retry_after_ms, rule.open_ms))
        return before._replace(failures=max(before.failures, rule.failures_max), until_ms=until_ms)
    if answer.kind == FAILED and (fault is None or _counts(fault)):
        return _failed_once_more(before, rule, at_ms)
    return before


def after_dispatch(breakers: dict[str, Breaker], agent: str, topology: Topology, at_ms: int) -> dict[str, Breaker]:
    """Return the breakers after a dispatch to an agent: a half-open breaker waits `open_ms` for the answer."""
    breaker, rule = breakers.get(agent, CALM), topology.agents[agent].breaker
    if rule is None or not breaker.until_ms or at_ms < breaker.until_ms:
        return breakers
    return _with(breakers, agent, breaker._replace(until_ms=at_ms + rule.open_ms))


def after_control(breakers: Breakers, said: Control, topology: Topology, at_ms: int) -> dict[str, Breaker]:
    """Return the breakers after mesh.control was relayed at `at_ms`.

    A breaker that opened here and is not reported yet stays as it is. Every breaker closes after the time of its
    rule, whatever time the relay claims.
    """
    kept = {
        name: breaker for name, breaker in breakers.items() if not breaker.shared or said.breaker_of(name) is not None
    }
    for switch in said.switches.values():
        spec = topology.agents.get(switch.agent)
        if switch.what != BREAKER or spec is None or spec.breaker is None:
            continue
        before = kept.get(switch.agent, CALM)
        until_ms = before.until_ms or min(switch.at_ms, at_ms) + spec.breaker.open_ms
        kept[switch.agent] = Breaker(before.failures, until_ms, shared=True)
    return kept


def find_transition(before: Breakers, after: Breakers, event: Event) -> BreakerTransition | None:
    """Return the transition to report on mesh.control after an answer; None if the breaker did not change."""
    was, now = before.get(event.agent, CALM), after.get(event.agent, CALM)
    if bool(was.until_ms) == bool(now.until_ms):
        return None
    why = f"{now.failures} failures in a row" if now.until_ms else "it answered"
    return BreakerTransition(event.agent, OPENED if now.until_ms else CLOSED, why, event.run_id, event.id, event.at_ms)


def _failed_once_more(before: Breaker, rule: BreakerRule, at_ms: int) -> Breaker:
    failures = before.failures + 1
    opens = before.until_ms > 0 or failures >= rule.failures_max
    return before._replace(failures=failures, until_ms=at_ms + rule.open_ms if opens else 0)


def _counts(fault: Fault) -> bool:
    return (fault.retryable and fault.code not in UNCOUNTED_CODES) or fault.code in COUNTED_CODES


def _with(breakers: Breakers, agent: str, breaker: Breaker) -> dict[str, Breaker]:
    others = {name: other for name, other in breakers.items() if name != agent}
    return others if breaker == CALM else {**others, agent: breaker}
