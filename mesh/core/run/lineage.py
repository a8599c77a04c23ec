"""Depth, path and cycles: why a hop is refused.

All three come from the orchestrator's own task table, never from an agent's message. A refusal names
the path and the numbers.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from mesh.core.protocol.event import fingerprint
from mesh.core.topology.model import AgentSpec, Limits

PATH_HOPS_SHOWN_MAX: Final = 16
"""Number of hops shown of a path; the middle of a longer one is left out. `Refusal.path` is complete."""


class Refusal(NamedTuple):
    """A refused hop, result or request. `code` is in docs/reference/reason-codes.md."""

    code: str
    agent: str
    path: tuple[str, ...]
    limit: int
    actual: int
    message: str


def refuse_hop(
    spec: AgentSpec, path: tuple[str, ...], visits: int, mark: str, inputs: Sequence[str], limits: Limits
) -> Refusal | None:
    """Return why `spec` may not be the next hop after `path`, or None.

    `visits` counts this hop already; `mark` is the `input_mark` of this hop, `inputs` are those of its ancestors
    (both empty on graphs without cycles).
    """
    depth = len(path) + 1
    if depth > limits.depth_max:
        text = f"depth: {format_path(path, spec)} is {depth} hops deep, at most {limits.depth_max}"
        return Refusal("depth", spec.name, path, limits.depth_max, depth, text)
    if mark and mark in inputs:
        text = f"cycle: {format_path(path, spec)} reaches {spec.name!r} again with the same input"
        return Refusal("cycle", spec.name, path, 1, 2, text)
    visits_max = visits_cap(spec, limits) if spec.cyclic or spec.visits_max is not None else None
    if visits_max is not None and visits > visits_max:
        text = (
            f"visits: {format_path(path, spec)} reaches {spec.name!r} {visits} times in this run, at most {visits_max}"
        )
        return Refusal("visits", spec.name, path, visits_max, visits, text)
    return None


def visits_cap(spec: AgentSpec, limits: Limits) -> int | None:
    """Return how often one run may visit an agent: its own cap, else that of the mesh for agents on a cycle.

    Only `fanout_max` and `tasks_max` limit an agent that is not on a cycle: a fan-out is no loop.
    """
    if spec.visits_max is not None:
        return spec.visits_max
    return limits.visits_max if spec.cyclic else None


def input_mark(spec: AgentSpec, type: str, data: bytes) -> str:
    """Return a mark that is equal for equal inputs of an agent on a cycle; empty for other agents."""
    return f"{spec.name}:{type}:{fingerprint(data)}" if spec.cyclic else ""


def format_path(path: Sequence[str], last: AgentSpec | None = None) -> str:
    """Format a path: `plan > write > critic`; the empty path of a request is `the request`."""
    hops = list(path) if last is None else [*path, last.name]
    if len(hops) > PATH_HOPS_SHOWN_MAX:
        left_out = len(hops) - PATH_HOPS_SHOWN_MAX
        hops[2 : 2 + left_out] = [f"({left_out} more)"]
    return " > ".join(hops) or "the request"
