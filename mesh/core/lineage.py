"""Depth, path and cycles: why a hop is refused.

All three come from the orchestrator's own task table, never from an agent's message (DESIGN §6). A refusal names
the path and the numbers, so that whoever reads it needs no second look.
"""

from typing import NamedTuple

from mesh.core.topology import AgentSpec, Limits


class Refusal(NamedTuple):
    """A hop, a result or a request that was not let through. `code` is in docs/protocol.md."""

    code: str
    agent: str
    path: tuple[str, ...]
    limit: int
    actual: int
    message: str


def refuse_hop(
    spec: AgentSpec,
    path: tuple[str, ...],
    depth: int,
    visits: int,
    input_mark: str,
    inputs: tuple[str, ...],
    limits: Limits,
) -> Refusal | None:
    """Why `spec` may not be the next hop after `path`, or None.

    `depth` and `visits` count this hop already; `input_mark` is `agent:fingerprint` of this hop's input, `inputs`
    those of its ancestors (both empty on graphs without cycles).
    """
    way = " > ".join((*path, spec.name))
    if depth > limits.depth_max:
        text = f"depth: {way} is {depth} hops deep, at most {limits.depth_max}"
        return Refusal("depth", spec.name, path, limits.depth_max, depth, text)
    if input_mark and input_mark in inputs:
        text = f"cycle: {way} reaches {spec.name!r} again with the same input"
        return Refusal("cycle", spec.name, path, 1, 2, text)
    visits_max = limits.visits_max if spec.visits_max is None else spec.visits_max
    if visits > visits_max:
        text = f"visits: {way} reaches {spec.name!r} {visits} times in this run, at most {visits_max}"
        return Refusal("visits", spec.name, path, visits_max, visits, text)
    return None
