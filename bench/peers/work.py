"""The work that every peer does: a task of about 200 bytes, validated by pydantic, and its answer.

Runs in the environment of the peers: nothing of the mesh is imported. In a kill test a task takes `work_ms` and its
beginning is written down, so that the one who kills knows how far the work is.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel


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
    """What the agent does."""
    return Answer(id=ask.id, total=sum(ask.numbers))


def worked(value: bytes) -> bytes:
    """Validated, handled, encoded. Raises ValidationError."""
    return answered(Ask.model_validate_json(value)).model_dump_json().encode()


@dataclass(slots=True)
class Slowly:
    """The same work, slow and written down: what a kill test needs. `touched_fd` -1: nothing is written."""

    work_ms: float
    touched_fd: int

    def _touch(self) -> None:
        if self.touched_fd >= 0:
            os.write(self.touched_fd, b".")

    def worked(self, value: bytes) -> bytes:
        """For loops that block."""
        if self.work_ms:
            self._touch()
            time.sleep(self.work_ms / 1000)
        return worked(value)

    async def worked_async(self, value: bytes) -> bytes:
        """For peers on asyncio."""
        if self.work_ms:
            self._touch()
            await asyncio.sleep(self.work_ms / 1000)
        return worked(value)


@dataclass(frozen=True, slots=True)
class Hop:
    """What a peer of the workload hop is told."""

    bootstrap: str
    source: str
    target: str
    group: str
    session_ms: int
    variant: str
    work: Slowly


def hop(arguments: Sequence[str] | None = None) -> Hop:
    """The command line of a peer of hop."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "source", "target", "group"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--session-ms", type=int, default=6_000)
    parser.add_argument("--variant", default="")
    parser.add_argument("--work-ms", type=float, default=0.0, help="how long a task takes")
    parser.add_argument("--touch", default="", help="file that grows by a byte at each begin of a task")
    said = parser.parse_args(arguments)
    return Hop(
        said.bootstrap,
        said.source,
        said.target,
        said.group,
        said.session_ms,
        said.variant,
        Slowly(said.work_ms, touched(said.touch)),
    )


def touched(path: str) -> int:
    """The descriptor of the file in which begun tasks are counted; -1 for none."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if path else -1
