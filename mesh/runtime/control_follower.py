"""Followers of small topics, which are read from their first record on without end.

A `TopicFollower` passes on every record in order. `ControlFollower` folds those of mesh.control; `control_now` reads
them once.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import ReadLog
from mesh.core.protocol.codec import Unreadable
from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.run.control import NOTHING, Control, fold_control
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_records

POLL_WAIT_MS = 500
RECORDS_MAX = 1_000
_log = diagnostics("follow")


class TopicFollower:
    """A reader of a topic outside any group. `take` gets each batch in order; it must not raise.

    `from_end`: read only records that are written after `run` begins.
    """

    def __init__(
        self, log: ReadLog, topic: str, take: Callable[[Sequence[Record]], None], *, from_end: bool = False
    ) -> None:
        self._log = log
        self._topic = topic
        self._take, self._from_end = take, from_end
        self.caught_up = asyncio.Event()
        """Set once all records were taken that the topic held when `run` began."""

    async def run(self) -> None:
        """Read until cancelled. Raises NotFound without the topic, LogUnavailable."""
        bounds = await self._log.bounds(self._topic)
        ends = {TopicPartition(self._topic, number): b.end for number, b in bounds.items()}
        starts = {TopicPartition(self._topic, number): b.start for number, b in bounds.items()}
        reader = self._log.reader(ends if self._from_end else starts)
        try:
            while True:
                if not self.caught_up.is_set() and all(reader.position(tp) >= end for tp, end in ends.items()):
                    self.caught_up.set()
                records = await reader.poll(records_max=RECORDS_MAX, wait_ms=POLL_WAIT_MS)
                if records:
                    self._take(records)
        finally:
            await reader.close()


class ControlFollower:
    """The state of mesh.control, kept up to date. `on_change` gets the new state after each change."""

    def __init__(self, log: ReadLog, topology: Topology, on_change: Callable[[Control], None]) -> None:
        self.control = NOTHING
        self._on_change = on_change
        self._follower = TopicFollower(log, topology.control, self._take)
        self.caught_up = self._follower.caught_up
        """Set once `control` is up to the moment when `run` began."""

    async def run(self) -> None:
        """Read as `TopicFollower.run` does."""
        await self._follower.run()

    def _take(self, records: Sequence[Record]) -> None:
        self.control, flaws = fold_control(self.control, records)
        _log_flaws(flaws)
        self._on_change(self.control)


async def control_now(log: ReadLog, topology: Topology) -> Control:
    """Read the state of mesh.control; empty if the topic does not exist. Raises LogUnavailable."""
    if topology.control not in await log.topics():
        return NOTHING
    bounds = await log.bounds(topology.control)
    async with aclosing(read_records(log, topology.control, bounds)) as stored:
        control, flaws = fold_control(NOTHING, [record async for record in stored])
    _log_flaws(flaws)
    return control


def _log_flaws(flaws: Sequence[Unreadable]) -> None:
    for flaw in flaws:
        _log.warning("a record of mesh.control was skipped", code=flaw.code, reason=flaw.message)
