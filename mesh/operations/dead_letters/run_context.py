"""What the inbox tells of runs that letters belong to."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Final

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, Log
from mesh.core.dead_letters.redrive_log import RedriveEntry
from mesh.core.dead_letters.redrive_plan import TASK
from mesh.core.history.task_attempts import Moment
from mesh.core.history.timeline import History
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import REDRIVEN, REQUESTED, Event
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import Record, coordinates
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_records
from mesh.runtime.topology_store import read_kept

NOTHING: Final = "nothing_to_redrive"
"""Code of the note that `intervene` leaves."""


async def requests_of(log: Log, topology: Topology, run_ids: Collection[str]) -> dict[str, list[Event]]:
    """The requests that these runs heard, as far as the inbox still has them, each once."""
    found: dict[str, dict[str, Event]] = {}
    async for record in _records(log, topology, run_ids):
        event = read_event(record)
        if not isinstance(event, Unreadable) and event.kind == REQUESTED:
            found.setdefault(event.run_id, {}).setdefault(event.id, event)
    return {run_id: list(events.values()) for run_id, events in found.items()}


async def histories_of(log: Log, topology: Topology, run_ids: Collection[str]) -> dict[str, History]:
    """The stories of these runs, as far as the inbox still has them; one pass over it for all."""
    found = _untold(topology, run_ids, await read_kept(log, topology, SystemClock()))
    async for record in _records(log, topology, run_ids):
        found[_run_id(record)].take(record)
    return found


async def heard(log: Log, topology: Topology, entries: Iterable[RedriveEntry]) -> list[RedriveEntry]:
    """Those of which the mesh has read what was sent, so that all that followed from it at once is on the log."""
    group = topology.group("orchestrator")
    commits = {(topology.inbox, n): c.offset for n, c in (await log.committed(group, topology.inbox)).items()}
    found: list[RedriveEntry] = []
    for entry in entries:
        topic, partition, offset = entry.place.rsplit(":", 2) if entry.place else ("", "0", "0")
        if commits.get((topic, int(partition)), 0) > int(offset):
            found.append(entry)
    return found


async def in_vain(log: Log, topology: Topology, entries: Sequence[RedriveEntry]) -> list[str]:
    """Keys of redrives that their runs heard and did nothing with, since the task had been sent before.

    Only what the log shows twice counts: a run that is told by another topology than it was decided by may miss a
    failure that it had.
    """
    places = {entry.place: entry.key for entry in entries if entry.way == TASK and entry.place}
    run_ids = {entry.run_id for entry in entries if entry.place in places}
    kept = await read_kept(log, topology, SystemClock())
    histories, before = _untold(topology, run_ids, kept), set[str]()
    found: list[str] = []
    async for record in _records(log, topology, run_ids):
        moments = histories[_run_id(record)].take(record)
        event = read_event(record)
        if isinstance(event, Unreadable) or event.kind != REDRIVEN:
            continue
        key = places.get(coordinates(record))
        if key is not None and event.task_id in before and any(map(_says_nothing, moments)):
            found.append(key)
        before.add(event.task_id)
    return found


def _says_nothing(moment: Moment) -> bool:
    return moment.kind == "noted" and moment.text.startswith(NOTHING)


def _untold(topology: Topology, run_ids: Collection[str], kept: Registry) -> dict[str, History]:
    homes = {id: partition_of(id.encode(), topology.inbox_partitions) for id in run_ids}
    return {id: History(topology, id, partition=home, kept=kept) for id, home in homes.items()}


def _run_id(record: Record) -> str:
    return (record.key or b"").decode()


async def _records(log: Log, topology: Topology, run_ids: Collection[str]) -> AsyncIterator[Record]:
    """What the inbox holds of these runs, in order for each."""
    keys = {run_id.encode() for run_id in run_ids}
    homes = {partition_of(key, topology.inbox_partitions) for key in keys}
    places: Mapping[int, Bounds] = await log.bounds(topology.inbox) if keys else {}
    async for record in read_records(log, topology.inbox, {n: b for n, b in places.items() if n in homes}):
        if record.key in keys:
            yield record
