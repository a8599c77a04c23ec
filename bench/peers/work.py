"""The work that every peer does: a task of about 200 bytes, validated by pydantic, and its answer.

Runs in the environment of the peers: nothing of the mesh is imported.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from bench.peers.slow import Slowness


class Ask(BaseModel):
    """The task, as `bench.agents.Ask`."""

    id: str
    text: str
    numbers: list[int]


class Answer(BaseModel):
    """The answer, as `bench.agents.Answer`."""

    id: str
    total: int


def answered(ask: Ask) -> Answer:
    """Do the work of the agent."""
    return Answer(id=ask.id, total=sum(ask.numbers))


def worked(value: bytes) -> bytes:
    """Validated, handled, encoded. Raises ValidationError."""
    return answered(Ask.model_validate_json(value)).model_dump_json().encode()


@dataclass(frozen=True, slots=True)
class Hop:
    """The options of a peer of the workload hop."""

    bootstrap: str
    source: str
    target: str
    group: str
    session_ms: int
    variant: str
    slowness: Slowness


def hop(arguments: Sequence[str] | None = None) -> Hop:
    """The command line of a peer of hop."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "source", "target", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--session-ms", type=int, default=6_000)
    parser.add_argument("--variant", default="")
    parser.add_argument("--work-ms", default="0", help="how long a task takes")
    parser.add_argument("--touch", default="", help="file that grows by a byte at each begin of a task")
    said = parser.parse_args(arguments)
    return Hop(
        said.bootstrap,
        said.source,
        said.target,
        said.group,
        said.session_ms,
        said.variant,
        Slowness.of(said.work_ms, said.touch),
    )
