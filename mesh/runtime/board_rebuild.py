"""The rebuild of a board from mesh.board: writes what is missing or older there, and nothing else.

Every write is a compare-and-set against the version read before, so that no later write is overwritten. A value once
written counts as present, so another rebuild finishes an interrupted one, and a second rebuild writes nothing.
Histories and answers to op_ids are not restored. A counter goes on from its value, but a task that is delivered again
after the loss adds to it again.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import NamedTuple, TypeVar

from mesh.adapters.ports import ABSENT, Board, Clock, Entry, Log
from mesh.core.board.changelog import MISSING, BoardChange, BoardRestart, StoredValue, compare, counter_of
from mesh.core.board.rules import BY_CHARS_MAX, RESTORE_OP, glob
from mesh.core.errors import Conflict
from mesh.core.topology.model import Topology
from mesh.runtime.board_changelog import mirror_changes, read_mirror

T = TypeVar("T")

AT_ONCE = 12
"""Number of keys read or written at the same time."""
BY = RESTORE_OP
"""Prefix of the writer's name in a value that was put back."""


class RebuildStep(NamedTuple):
    """A key: its newest change on the log, its state on the board, and the verdict `same`, `newer` or `missing`."""

    change: BoardChange
    stored: StoredValue
    verdict: str


class RebuildPlan(NamedTuple):
    """The comparison of all keys, sorted by key."""

    steps: Sequence[RebuildStep]
    restarts: Sequence[BoardRestart]

    @property
    def missing(self) -> list[RebuildStep]:
        """The steps that would write."""
        return [step for step in self.steps if step.verdict == MISSING]

    def count(self, verdict: str) -> int:
        """Return the number of keys with this verdict."""
        return sum(step.verdict == verdict for step in self.steps)


class StepResult(NamedTuple):
    """The result of a step. `entry` None: not written, since another write came between."""

    step: RebuildStep
    entry: Entry | None


class Rebuild:
    """A comparison of a board with its mirror, which can write what is missing."""

    def __init__(self, log: Log, board: Board, topology: Topology, clock: Clock) -> None:
        self._log, self._board, self._topology, self._clock = log, board, topology, clock

    async def plan(
        self, pattern: str = "*", *, on_progress: Callable[[int, int], None] = lambda *_: None
    ) -> RebuildPlan:
        """Compare every key that matches. `on_progress` gets the numbers of keys compared and of all keys.

        Raises NotFound without mesh.board, InvalidInput for a bad pattern, LogUnavailable, BoardUnavailable.
        """
        matches = glob(pattern)
        mirror = await read_mirror(self._log, self._clock, self._topology)
        incarnations = mirror.incarnations
        changes = [held.change for key, held in mirror.newest().items() if matches(key)]
        steps: list[RebuildStep] = []
        for batch in _batches(changes):
            found = await asyncio.gather(*(self._stored_value(change.key) for change in batch))
            pairs = zip(batch, found, strict=True)
            steps += [RebuildStep(change, stored, compare(change, stored, incarnations)) for change, stored in pairs]
            on_progress(len(steps), len(changes))
        return RebuildPlan(steps, mirror.restarts)

    async def write(self, steps: Sequence[RebuildStep]) -> AsyncGenerator[StepResult, None]:
        """Write these steps and mirror them. Close the generator (`aclosing`); completed writes stay.

        Raises BoardUnavailable, LogUnavailable; then another call does the rest.
        """
        for batch in _batches(steps):
            done = await asyncio.gather(*(self._write(step) for step in batch), return_exceptions=True)
            written = [one for one in done if isinstance(one, StepResult)]
            await self._mirror([(one.step, one.entry) for one in written if one.entry is not None])
            for one in written:
                yield one
            for error in done:
                if isinstance(error, BaseException):
                    raise error

    async def restore(self) -> int:
        """Write all that is missing and return the number of values written. Raises as `plan` and `write` do."""
        written = 0
        async with aclosing(self.write((await self.plan()).missing)) as done:
            async for one in done:
                written += one.entry is not None
        return written

    async def _stored_value(self, key: str) -> StoredValue:
        newest, entry = await self._board.history(key, limit=1), await self._board.get(key)
        return StoredValue(None if entry is None else entry.value, newest[0].version if newest else "")

    async def _write(self, step: RebuildStep) -> StepResult:
        change = step.change
        entry = await self._board.get(change.key)
        newest = await self._board.history(change.key, limit=1)
        version = newest[0].version if newest else ""
        if version != step.stored.version or (entry and counter_of(entry.version) != counter_of(version)):
            return StepResult(step, None)
        try:
            written = await self._board.put(
                change.key,
                change.value,
                expect=ABSENT if entry is None else entry.version,
                by=(BY + change.by.removeprefix(BY))[:BY_CHARS_MAX],
                op_id=f"{BY}{change.version}",
            )
        except Conflict:
            return StepResult(step, None)
        return StepResult(step, written)

    async def _mirror(self, written: Sequence[tuple[RebuildStep, Entry]]) -> None:
        changes = [BoardChange(e.key, e.value, e.version, e.by, f"{BY}{s.change.version}", e.at_ms) for s, e in written]
        await mirror_changes(self._log, self._topology, changes)


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for at in range(0, len(items), AT_ONCE):
        yield items[at : at + AT_ONCE]
