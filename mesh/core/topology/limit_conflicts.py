"""Find contradictory amounts in topics.yaml: those of an agent or a topic against those of a run. Pure."""

from collections.abc import Callable, Container, Iterator

from mesh.core.errors import Problem
from mesh.core.topology.model import AgentSpec, Limits, Topology

LineOf = Callable[..., int]
"""A function that returns the line of the first of the given places that was written."""


def find_conflicts(declared: Topology, line: LineOf, written: Container[str]) -> Iterator[Problem]:
    """Yield amounts of agents that exceed those of a run, and retentions shorter than a run may take.

    `written`: the places that topics.yaml contains, such as `agents.fraud.timeout`.
    """
    limits = declared.limits
    for spec in declared.agents.values():
        yield from _of_agent(spec, limits, line, written)
    kept = declared.retention
    for word, kept_ms in (("inbox", kept.inbox_ms), ("outcomes", kept.outcomes_ms), ("tasks", kept.tasks_ms)):
        if 0 <= kept_ms < limits.deadline_ms:
            place = f"mesh.retention.{word}"
            what = f"{place}: {_seconds(kept_ms)} is shorter than a run may take, {_seconds(limits.deadline_ms)}"
            yield Problem(line(place, "mesh.limits.deadline"), what, f"Raise {place}, or lower the deadline")


def _of_agent(spec: AgentSpec, limits: Limits, line: LineOf, written: Container[str]) -> Iterator[Problem]:
    timeout = f"agents.{spec.name}.timeout"
    if timeout in written and spec.timeout_ms > limits.deadline_ms:
        longer = f"{_seconds(spec.timeout_ms)} is longer than a run may take"
        what = f"{timeout}: {longer}, {_seconds(limits.deadline_ms)}"
        yield Problem(line(timeout), what, "Lower it, or raise mesh.limits.deadline")
    for unit, reserved, budget in (
        ("usd", _usd(spec.reserve_usd_micros), _usd(limits.usd_micros_max)),
        ("tokens", spec.reserve_tokens, limits.tokens_max),
    ):
        if budget is not None and reserved is not None and reserved > budget:
            place = f"agents.{spec.name}.reserve.{unit}"
            what = f"{place}: {reserved:,} is more than the budget of a run, {budget:,}"
            yield Problem(line(place), what, f"Lower it, or raise mesh.limits.budget.{unit}")
    first, last = f"agents.{spec.name}.retry.first", f"agents.{spec.name}.retry.max"
    if spec.retry.first_ms > spec.retry.delay_ms_max:
        longer = f"{_seconds(spec.retry.first_ms)} is longer than retry.max"
        what = f"{first}: {longer}, {_seconds(spec.retry.delay_ms_max)}"
        yield Problem(line(first, last), what, "Lower retry.first, or raise retry.max")


def _seconds(ms: int) -> str:
    return f"{ms / 1000:g}s"


def _usd(micros: int | None) -> float | None:
    return None if micros is None else micros / 1_000_000
