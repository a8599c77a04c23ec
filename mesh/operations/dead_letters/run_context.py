"""Read the runs of dead letters from the inbox."""

from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.dead_letters.redrive_log import RedriveEntry
from mesh.core.dead_letters.redrive_plan import TASK
from mesh.core.history.task_attempts import Moment
from mesh.core.history.timeline import History
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import REDRIVEN, REQUESTED, Event
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import Record, coordinates, parse_coordinates
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.model import Topology
from mesh.runtime.log_reader import read_records
from mesh.runtime.topology_store import read_kept

NOTHING: Final = "nothing_to_redrive"
"""Code of the note for a redrive without effect (`run.operator`)."""


async def requests_of(log: ReadLog, topology: Topology, run_ids: Collection[str]) -> dict[str, list[Event]]:
    """Return the requests that these runs consumed, as far as the inbox still has them, each once."""
    found: dict[str, dict[str, Event]] = {}
    async with aclosing(_records(log, topology, run_ids)) as records:
        async for record in records:
            event = read_event(record)
            if not isinstance(event, Unreadable) and event.kind == REQUESTED:
                found.setdefault(event.run_id, {}).setdefault(event.id, event)
    return {run_id: list(events.values()) for run_id, events in found.items()}


async def histories_of(log: ReadLog, topology: Topology, run_ids: Collection[str]) -> dict[str, History]:
    """Return the histories of these runs, as far as the inbox still has them, in one pass over it."""
    found = _empty_histories(topology, run_ids, await read_kept(log, topology, SystemClock()))
    async with aclosing(_records(log, topology, run_ids)) as records:
        async for record in records:
            found[_run_id(record)].take(record)
    return found


async def consumed(log: ReadLog, topology: Topology, entries: Iterable[RedriveEntry]) -> list[RedriveEntry]:
    """Return the entries whose sent record the mesh has committed: its immediate effects are on the log."""
    group = topology.group("orchestrator")
    commits = {(topology.inbox, n): c.offset for n, c in (await log.committed(group, topology.inbox)).items()}
    found: list[RedriveEntry] = []
    for entry in entries:
        place = parse_coordinates(entry.place)
        if place is not None and commits.get((place.topic, place.partition), 0) > place.offset:
            found.append(entry)
    return found


async def redrives_without_effect(log: ReadLog, topology: Topology, entries: Sequence[RedriveEntry]) -> list[str]:
    """Return the keys of redrives that their runs consumed and ignored, because the task had been sent before.

    Only a second redrive of a task on the log counts: a history that is read under another topology than its decisions
    may miss a failure.
    """
    places = {entry.place: entry.key for entry in entries if entry.way == TASK and entry.place}
    run_ids = {entry.run_id for entry in entries if entry.place in places}
    kept = await read_kept(log, topology, SystemClock())
    histories, before = _empty_histories(topology, run_ids, kept), set[str]()
    found: list[str] = []
    async with aclosing(_records(log, topology, run_ids)) as records:
        async for record in records:
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


def _empty_histories(topology: Topology, run_ids: Collection[str], kept: Registry) -> dict[str, History]:
    homes = {id: partition_of(id.encode(), topology.inbox_partitions) for id in run_ids}
    return {id: History(topology, id, partition=home, kept=kept) for id, home in homes.items()}


def _run_id(record: Record) -> str:
    return (record.key or b"").decode()


async def _records(log: ReadLog, topology: Topology, run_ids: Collection[str]) -> AsyncGenerator[Record]:
    """Yield the inbox records of these runs, in order for each. Close the generator (`aclosing`)."""
    keys = {run_id.encode() for run_id in run_ids}
    homes = {partition_of(key, topology.inbox_partitions) for key in keys}
    places: Mapping[int, Bounds] = await log.bounds(topology.inbox) if keys else {}
    async with aclosing(read_records(log, topology.inbox, {n: b for n, b in places.items() if n in homes})) as stored:
        async for record in stored:
            if record.key in keys:
                yield record
