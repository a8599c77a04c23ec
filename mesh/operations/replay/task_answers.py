"""Read the tasks of one agent from a recording, each with the answer that it got.

The answers on the inbox lead: each names the record of its task (`mesh-origin`). So the memory that this takes does not
depend on the length of the recording, nor on how long answers took.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, NamedTuple

from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import FAILED, SUCCEEDED, TASK, Event
from mesh.core.protocol.record import Record, coordinates, parse_coordinates
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_batches, read_records

PAIRS_MAX: Final = 2_000
"""Pairs of one batch. The embedded log stores many records together, and reading few of them costs as much as all."""
SPREAD_MAX: Final = 4
"""Tasks of a batch are read in one span if it has at most this many times as many records."""
SEEN_MAX: Final = 10_000
"""Latest answers that are remembered, so that a repeated one is left out."""
NOT_CALLED: Final = frozenset({"expired", "run_ended", "left_alone"})
"""Codes of failures that say nothing about the function: it was not called, or its answer was not awaited."""


class TaskAnswer(NamedTuple):
    """A recorded task and its recorded answer. `took_ms`: from its record to that of the answer, without its wait."""

    task: Event
    answer: Event
    took_ms: int

    @property
    def where(self) -> str:
        """Coordinates of the task."""
        return self.answer.origin


class Period(NamedTuple):
    """A part of a recording, by log time in milliseconds; None: without limit."""

    since_ms: int | None = None
    until_ms: int | None = None


@dataclass(slots=True)
class Skipped:
    """Numbers of answers that cannot be compared."""

    gone: int = 0
    """The record of the task is no longer in the recording."""
    not_called: int = 0
    """The function was not called, or its answer was not awaited."""
    head_removed: bool = False
    """Whether the period begins before the records that are left on the inbox."""


async def read_task_answers(
    log: ReadLog, topology: Topology, agent: str, period: Period, skipped: Skipped
) -> AsyncGenerator[Sequence[TaskAnswer]]:
    """Yield the tasks of an agent that were answered in `period`, in batches, in the order of their answers.

    Close the generator (`aclosing`). Raises NotFound without the mesh's topics, LogUnavailable.
    """
    tasks = await log.bounds(topology.tasks(agent))
    waiting: list[Event] = []
    seen: OrderedDict[str, None] = OrderedDict()
    inbox = await bounds_in(log, topology.inbox, period)
    skipped.head_removed = begins_removed(await log.bounds(topology.inbox), inbox)
    async with aclosing(read_batches(log, topology.inbox, inbox)) as batches:
        async for records in batches:
            for answer in _answers(records, agent, seen):
                if answer.fault is not None and answer.fault.code in NOT_CALLED:
                    skipped.not_called += 1
                else:
                    waiting.append(answer)
            while len(waiting) >= PAIRS_MAX:
                yield await _paired(log, topology, waiting[:PAIRS_MAX], tasks, skipped)
                del waiting[:PAIRS_MAX]
    if waiting:
        yield await _paired(log, topology, waiting, tasks, skipped)


async def bounds_in(log: ReadLog, topic: str, period: Period) -> Mapping[int, Bounds]:
    """Return the offsets of a topic that lie in a span of time. Raises NotFound, LogUnavailable."""
    bounds = await log.bounds(topic)
    starts = None if period.since_ms is None else await log.offsets_at(topic, period.since_ms)
    ends = None if period.until_ms is None else await log.offsets_at(topic, period.until_ms)
    return {
        number: Bounds(each.start if starts is None else starts[number], each.end if ends is None else ends[number])
        for number, each in bounds.items()
    }


def begins_removed(held: Mapping[int, Bounds], wanted: Mapping[int, Bounds]) -> bool:
    """Whether wanted bounds begin with the first record that the log still holds, and others were before it."""
    return any(held[number].start and each.start <= held[number].start for number, each in wanted.items())


def _answers(records: Sequence[Record], agent: str, seen: OrderedDict[str, None]) -> Iterator[Event]:
    """Yield the answers of an agent among records, each attempt's first one."""
    for record in records:
        event = read_event(record)
        if isinstance(event, Unreadable) or event.agent != agent or event.kind not in (SUCCEEDED, FAILED):
            continue
        if event.cause_id not in seen:
            seen[event.cause_id] = None
            if len(seen) > SEEN_MAX:
                seen.popitem(last=False)
            yield event


async def _paired(
    log: ReadLog, topology: Topology, answers: Sequence[Event], tasks: Mapping[int, Bounds], skipped: Skipped
) -> Sequence[TaskAnswer]:
    """Read the tasks of these answers."""
    places: dict[int, set[int]] = {}
    for answer in answers:
        origin = parse_coordinates(answer.origin)
        if origin is None or origin.topic != topology.tasks(answer.agent):
            continue
        if origin.partition in tasks and origin.offset >= tasks[origin.partition].start:
            places.setdefault(origin.partition, set()).add(origin.offset)
    found: dict[str, Event] = {}
    for number, offsets in places.items():
        for bounds in _spans(sorted(offsets)):
            async with aclosing(read_records(log, topology.tasks(answers[0].agent), {number: bounds})) as records:
                async for record in records:
                    task = read_event(record)
                    if record.offset in offsets and not isinstance(task, Unreadable):
                        found[coordinates(record)] = task
    pairs = []
    for answer in answers:
        asked = found.get(answer.origin)
        if asked is None or asked.kind != TASK or asked.id != answer.cause_id:
            skipped.gone += 1
        else:
            pairs.append(TaskAnswer(asked, answer, max(0, answer.at_ms - asked.at_ms - answer.waited_ms)))
    return pairs


def _spans(offsets: Sequence[int]) -> Iterator[Bounds]:
    """Yield spans that cover these offsets without reading much more."""
    if offsets[-1] + 1 - offsets[0] <= SPREAD_MAX * len(offsets):
        yield Bounds(offsets[0], offsets[-1] + 1)
        return
    half = len(offsets) // 2
    if half == 0:
        yield Bounds(offsets[0], offsets[0] + 1)
        return
    yield from _spans(offsets[:half])
    yield from _spans(offsets[half:])
