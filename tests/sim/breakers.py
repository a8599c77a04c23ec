"""Breakers in a world that has come to rest: an agent that failed too often in a row is not called for a while.

Judged by the calls themselves, whichever partitions their runs live in.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mesh.core.topology.model import Topology

WELL, SICK, UNKNOWN = "well", "sick", "unknown"


class Call(NamedTuple):
    """One call of an agent's function, in the order in which they ended. `how`: what it says about the agent."""

    host: str
    agent: str
    began_s: float
    ended_s: float
    how: str


def broken(calls: Sequence[Call], topology: Topology) -> Iterator[str]:
    """Every call that a breaker should not have let through, in plain words.

    Checked only if one process made all calls of the agent, one at a time. Results of other processes and calls under
    way count too, and are not visible here.
    """
    for name in topology.breaking:
        spec = topology.agents[name]
        mine = [call for call in calls if call.agent == name]
        if spec.breaker is None or spec.lanes > 1 or len({call.host for call in mine}) != 1:
            continue
        row, last_s = 0, 0.0
        for call in mine:
            left_ms = (last_s - call.began_s) * 1000 + spec.breaker.open_ms
            if row >= spec.breaker.failures_max and left_ms > 1:
                yield f"{name} was called after {row} failures in a row, {left_ms:.0f} ms before its breaker may close"
            row = row + 1 if call.how == SICK else 0
            last_s = call.ended_s
