"""Request runs of one or three steps from a peer, and do their steps; in the environment of the peers.

Throughput: a number of runs is in flight, each is requested and awaited, and its answer is written when the outcome is
there. In a kill test runs are requested one by one and not awaited. An accepted run is never requested again, so the
peer must not lose it. Its last step writes the answer, like a step with an effect outside.
"""

import argparse
import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.peers.slow import Slowness
from bench.peers.work import Ask, answered

IN_FLIGHT = 64
PACED_S = 16.0
"""Seconds within which a kill test requests all its runs, if no process is killed."""


def run_id(n: int) -> str:
    """Always as long: answers are counted by the size of their file."""
    return f"run-{n:07d}"


def append(path: Path, id: str) -> None:
    """One write, whole or not at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, f"{id}\n".encode())
    os.close(descriptor)


class Runs(NamedTuple):
    """The options of a peer of run1 and run3."""

    steps: int
    runs: int
    folder: Path
    slowness: Slowness

    @property
    def slow(self) -> bool:
        """Whether this is a kill test."""
        return self.slowness.work_ms > 0

    def ask(self, id: str) -> str:
        """The request as JSON, about 200 bytes."""
        text = "what is the sum of these numbers? " * 4
        return Ask(id=id, text=text, numbers=[1, 2, 3]).model_dump_json()

    async def step(self, number: int, ask: str) -> str:
        """Step `number`, from 1: validated, handled, encoded."""
        valid = Ask.model_validate_json(ask)
        if self.slow and number == 1:
            self.slowness.begin()
        if self.slow:
            await asyncio.sleep(self.slowness.work_ms / 1000)
        if number < self.steps:
            return valid.model_dump_json()
        if self.slow:
            append(self.folder / "answers", valid.id)
        return answered(valid).model_dump_json()


def parse_options(arguments: Sequence[str] | None = None) -> Runs:
    """The command line of a peer of run1 and run3."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--work-ms", default="0", help="how long a step takes")
    parser.add_argument("--touch", default="", help="file that grows by a byte at each begin of a run")
    said = parser.parse_args(arguments)
    return Runs(said.steps, said.runs, said.folder, Slowness.of(said.work_ms, said.touch))


Asking = Callable[[str, str], Awaitable[None]]


async def drive(runs: Runs, *, call: Asking, accept: Asking) -> None:
    """Ask for all runs: `call` (id, request) returns with the outcome, `accept` when the run is the peer's duty. Then
    wait to be killed."""
    if runs.slow:
        await _paced(runs, accept)
    else:
        await _in_flight(runs, call)
    await asyncio.Event().wait()


async def _paced(runs: Runs, accept: Asking) -> None:
    path = runs.folder / "accepted"
    accepted = set(path.read_text().split()) if path.exists() else set()
    due = time.monotonic()
    for n in range(runs.runs):
        id = run_id(n)
        if id not in accepted:
            due += PACED_S / runs.runs
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await accept(id, runs.ask(id))
            append(path, id)


async def _in_flight(runs: Runs, call: Asking) -> None:
    numbers = iter(range(runs.runs))

    async def asker() -> None:
        for n in numbers:
            id = run_id(n)
            await call(id, runs.ask(id))
            append(runs.folder / "answers", id)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(asker())
