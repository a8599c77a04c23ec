"""Where the records of a run are. `Runs` asks a `RunFinder`: the partitions of the log, or the index of runs."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import NamedTuple, Protocol

from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.history.run_entry import GAP_MAX, Spans
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import REQUESTED
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import Record
from mesh.core.run.control import ALL
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_records

PREFIXED_MAX = 50
"""Runs counted whose id begins with a name; more are equally ambiguous."""
NO_RUN = ALL.encode()  # the key of what concerns all runs


class RunPlaces(NamedTuple):
    """Offsets that hold all records of a run that the log still has, among those of others."""

    home: int
    """Partition of its records on the inbox."""
    inbox: Spans
    outcomes: Mapping[int, Spans]
    common: Spans
    """Records of its home that concern all runs."""
    certain: bool = False
    """Whether a record of the run must be there."""


class RunFinder(Protocol):
    """Finds runs by name, and their records."""

    async def named(self, name: str) -> list[str]:
        """Return the ids of the runs with this id, else with a request of this id or subject, else with this prefix."""

    async def places(self, run_id: str) -> RunPlaces:
        """Return where the records of a run are."""

    def refuse(self, run_id: str) -> Exception:
        """Return the error for places that are certain and hold no record of the run."""


class PartitionFinder:
    """A `RunFinder` that knows nothing but the partition of a key: it reads all of it."""

    def __init__(self, log: ReadLog, topology: Topology) -> None:
        self._log, self._topology = log, topology

    async def named(self, name: str) -> list[str]:
        """See RunFinder. Takes one pass over the inbox."""
        found: tuple[dict[bytes, str], ...] = ({}, {}, {})
        wanted, topic = name.encode(), self._topology.inbox
        async with aclosing(read_records(self._log, topic, await self._log.bounds(topic))) as stored:
            async for record in stored:
                key = record.key or b""
                if key == NO_RUN:
                    continue
                rank = 0 if key == wanted else 2 if key.startswith(wanted) else 3
                if rank and is_request(record, name):
                    rank = 1
                if rank < 2 or (rank == 2 and len(found[2]) < PREFIXED_MAX):  # more are ambiguous anyway
                    found[rank][key] = key.decode("utf-8", "replace")
        return list((found[0] or found[1] or found[2]).values())

    async def places(self, run_id: str) -> RunPlaces:
        """See RunFinder."""
        key = run_id.encode()
        inbox, outcomes = [await self._log.bounds(topic) for topic in (self._topology.inbox, self._topology.outcomes)]
        home, reported = partition_of(key, len(inbox)), partition_of(key, len(outcomes))
        return RunPlaces(home, _all(inbox[home]), {reported: _all(outcomes[reported])}, _all(inbox[home]))

    def refuse(self, run_id: str) -> Exception:
        """See RunFinder."""
        raise AssertionError(f"no place of run {run_id} is certain")


async def read_places(log: ReadLog, topic: str, spans: Mapping[int, Spans]) -> AsyncGenerator[Record]:
    """Yield the records of these spans that the log still has, in order for each partition, with others between them.

    Close the generator (`aclosing`).
    """
    bounds = await log.bounds(topic)
    ordered = {number: _joined(found) for number, found in spans.items() if found and number in bounds}
    for turn in range(max(map(len, ordered.values()), default=0)):
        places = {
            number: Bounds(max(found[turn][0], bounds[number].start), min(found[turn][1] + 1, bounds[number].end))
            for number, found in ordered.items()
            if turn < len(found)
        }
        async with aclosing(read_records(log, topic, places)) as stored:
            async for record in stored:
                yield record


def is_request(record: Record, name: str = "") -> bool:
    """Return whether a record is a request, and has this id or subject if one is given."""
    event = read_event(record)
    if isinstance(event, Unreadable) or event.kind != REQUESTED:
        return False
    return not name or name in (event.id, event.subject)


def _all(bounds: Bounds) -> Spans:
    return [(bounds.start, bounds.end - 1)] if bounds.end > bounds.start else []


def _joined(spans: Spans) -> Spans:
    """Join spans that lie close together; each is then read in one go."""
    joined: Spans = []
    for first, last in sorted(spans):
        if joined and first - joined[-1][1] <= GAP_MAX:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined
