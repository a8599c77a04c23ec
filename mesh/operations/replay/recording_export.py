"""Write runs of a log as a recording: lines of `core.replay.recording_format`, one after the other, flat in memory.

The order of reading is that of the verifier: committed offsets, the ends of published topics, the end of the inbox.
So a mesh that runs meanwhile leaves no decision in the file whose effects are missing. Topics of tasks, outcomes, dead
letters and egress are read from the time of the first record of the chosen runs until `SLACK_MS` after their last one.
"""

from array import array
from bisect import bisect_left
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.board.changelog import BoardChange, change_record, read_board_record
from mesh.core.board.past_values import PastValue
from mesh.core.dead_letters.letter import letter_of
from mesh.core.errors import NotFound
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import REQUESTED, Event
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import Record, StoredRecord, parse_coordinates
from mesh.core.replay.recording_format import Masking, RecordingHead, end_line, record_line
from mesh.core.run.control import ALL
from mesh.core.state.checkpoint import CheckpointUnreadable, CommitNote, read_note
from mesh.core.topology.model import SERVICE_GROUPS, Topology
from mesh.core.verification.publish_index import mark
from mesh.core.verification.verifier import published_topics
from mesh.operations.run_places import RunPlaces, read_places
from mesh.runtime.log_reader import bounds_between, read_batches, records_at
from mesh.runtime.topology_store import read_kept

SLACK_MS: Final = 60_000
"""Effects of a last decision are published this long after it at most, but for an orchestrator that was down longer."""


class RunMarks:
    """Ids of runs, eight bytes each."""

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._marks = array("Q", sorted({int.from_bytes(mark(id)) for id in ids}))

    def __contains__(self, run_id: str) -> bool:
        wanted = int.from_bytes(mark(run_id))
        at = bisect_left(self._marks, wanted)
        return at < len(self._marks) and self._marks[at] == wanted

    def __len__(self) -> int:
        return len(self._marks)


class ChosenRuns(NamedTuple):
    """The runs to export. `marks` None: all. `run_id`: of the only one, "" for several."""

    marks: RunMarks | None
    run_id: str = ""
    described: Mapping[str, Any] = {}
    """Options by which they were chosen, for the head."""
    places: RunPlaces | None = None
    """Where the records of the only run are, if that is known."""

    def has(self, run_id: str) -> bool:
        """Whether a run is chosen."""
        return self.marks is None or (run_id == self.run_id if self.run_id else run_id in self.marks)


async def runs_where(
    log: ReadLog,
    topology: Topology,
    wanted: Callable[[Record, Event], bool],
    *,
    since_ms: int | None,
    until_ms: int | None,
) -> RunMarks:
    """Choose the runs with a request in this time span for which `wanted` holds."""
    bounds = await bounds_between(log, topology.inbox, since_ms, until_ms)
    ids: set[str] = set()
    async with aclosing(read_batches(log, topology.inbox, bounds)) as batches:
        async for batch in batches:
            for record in batch:
                event = read_event(record)
                if isinstance(event, Event) and event.kind == REQUESTED and wanted(record, event):
                    ids.add(event.run_id)
    return RunMarks(ids)


async def export(
    log: ReadLog,
    topology: Topology,
    chosen: ChosenRuns,
    *,
    masking: Masking,
    redacted: Iterable[str] = (),
    version: str = "",
    embedded: Callable[[int], Iterable[PastValue]] | None = None,
    gaps: list[str] | None = None,
) -> AsyncGenerator[bytes]:
    """Yield the lines of a recording. Close the generator. Raises NotFound without the inbox, LogUnavailable.

    `embedded`: a reader of the values up to a time of a board that has no mirror on the log. `gaps`: what the log is
    known to lack; gets what it lacks of the chosen runs.
    """
    exporter = _Exporter(log, topology, chosen, masking, embedded)
    exporter.gaps = [] if gaps is None else gaps
    yield await exporter.head(version, list(redacted))
    async with aclosing(exporter.records()) as records:
        async for record in records:
            yield record_line(masking.mask(record))
            exporter.count += 1
    yield end_line(exporter.count, masking.counts, exporter.gaps)


class _Exporter:
    """One export."""

    def __init__(
        self,
        log: ReadLog,
        topology: Topology,
        chosen: ChosenRuns,
        masking: Masking,
        embedded: Callable[[int], Iterable[PastValue]] | None,
    ) -> None:
        self._log, self._topology, self._chosen = log, topology, chosen
        self._embedded = embedded
        self.count = 0
        self.gaps: list[str] = []
        self._bounds: dict[str, Mapping[int, Bounds]] = {}
        self._published: list[str] = []
        self._ingress: list[str] = []
        self._origins: dict[tuple[str, int], array[int]] = {}
        """Ingress topic and partition → offsets of the requests of the chosen runs."""
        self._tasks: set[str] = set()
        """Ids of the tasks of the only chosen run."""
        self._first_ms: int | None = None
        self._last_ms = 0

    async def head(self, version: str, redacted: list[str]) -> bytes:
        log, topology = self._log, self._topology
        there = await log.topics()
        if topology.inbox not in there:
            raise NotFound("the log has no inbox of this mesh", where=f"{log.url} {topology.inbox}")
        kept = await read_kept(log, topology, SystemClock())
        known = list({topology.digest: topology, **kept.topologies}.values())
        agents = dict.fromkeys(name for one in known for name in one.agents)
        ingress = [rule.name for one in known for rule in one.topics.values() if rule.ingress]
        self._published = [name for name in published_topics(*known) if name in there]
        self._ingress = [name for name in dict.fromkeys(ingress) if name in there]
        commits = await self._commits([*SERVICE_GROUPS, *agents], there)
        for name in (*self._published, topology.board, *self._ingress, topology.control, topology.topologies):
            if name in there:
                self._bounds[name] = await log.bounds(name)
        self._bounds[topology.inbox] = await log.bounds(topology.inbox)
        bounds = {
            topic: [(each.start, each.end) for _, each in sorted(found.items())]
            for topic, found in self._bounds.items()
        }
        return RecordingHead(
            mesh_version=version,
            topology=topology,
            log=log.url,
            recorded_ms=log.now_ms(),
            bounds=bounds,
            commits=commits,
            chosen=self._chosen.described,
            redacted=redacted,
        ).line()

    async def _commits(
        self, services: list[str], there: Mapping[str, int]
    ) -> dict[str, dict[str, dict[int, tuple[int, str]]]]:
        """Return the commits of the mesh's groups. Checkpoints are not exported, so no commit names one."""
        topology = self._topology
        topics = {"orchestrator": [topology.inbox], "intake": self._ingress, "monitor": list[str]()}
        found: dict[str, dict[str, dict[int, tuple[int, str]]]] = {}
        for service in dict.fromkeys(services):
            for topic in topics.get(service, [topology.tasks(service)]):
                stored = await self._log.committed(topology.group(service), topic) if topic in there else {}
                if stored:
                    places = {n: (one.offset, _without_checkpoint(one.metadata)) for n, one in stored.items()}
                    found.setdefault(topology.group(service), {})[topic] = places
        return found

    async def records(self) -> AsyncGenerator[Record]:
        """Yield the records to export, topic by topic."""
        topology = self._topology
        for topic in (topology.topologies, topology.control):
            async for record in self._read(topic, self._bounds.get(topic, {})):
                yield record
        async with aclosing(self._inbox()) as inbox:
            async for record in inbox:
                if self._takes(record):
                    yield record
        if self._first_ms is None:
            self._note_gap("no record of the chosen runs is left on the inbox")
        for topic in self._published:
            async for record in self._read(topic, await self._window(topic)):
                if self._chosen.marks is None or self._chosen.has(_run_of(record, dead=topic == topology.dead)):
                    yield record
        for topic in self._ingress:
            async for record in self._requests(topic):
                yield record
        async for record in self._board():
            yield record

    async def _inbox(self) -> AsyncGenerator[Record]:
        """Yield the records of the inbox among which the chosen ones are."""
        topic, places = self._topology.inbox, self._chosen.places
        if places is None:
            stored = self._read(topic, self._homes(topic))
        else:
            stored = read_places(self._log, topic, {places.home: [*places.inbox, *places.common]})
        ends = self._bounds[topic]
        async with aclosing(stored) as records:
            async for record in records:
                if record.offset < ends[record.partition].end:
                    yield record

    def _homes(self, topic: str) -> Mapping[int, Bounds]:
        """Return the partitions that hold the chosen runs."""
        bounds = self._bounds[topic]
        if not self._chosen.run_id:
            return bounds
        home = partition_of(self._chosen.run_id.encode(), len(bounds))
        return {home: bounds[home]}

    def _takes(self, record: Record) -> bool:
        """Whether a record of the inbox is exported; notes its time and the place of its request."""
        run_id = (record.key or b"").decode("utf-8", "replace")
        if run_id == ALL:
            return True
        if not self._chosen.has(run_id):
            return False
        event = read_event(record)
        if self._first_ms is None or record.timestamp < self._first_ms:
            self._first_ms = record.timestamp
            if self._chosen.run_id and not (isinstance(event, Event) and event.kind == REQUESTED):
                where = f"{record.topic}:{record.partition}:{record.offset}"
                self._note_gap(f"records before {where} were removed from the log")
        self._last_ms = max(self._last_ms, record.timestamp)
        if isinstance(event, Event) and event.task_id and self._chosen.run_id:
            self._tasks.add(event.task_id)
        if isinstance(event, Event) and event.kind == REQUESTED:
            origin = parse_coordinates(event.origin)
            if origin is not None and origin.topic in self._ingress:
                self._origins.setdefault((origin.topic, origin.partition), array("q")).append(origin.offset)
        return True

    def _note_gap(self, text: str) -> None:
        self.gaps.append(text)

    async def _window(self, topic: str) -> Mapping[int, Bounds]:
        """Return the bounds of the records that the chosen runs may have in a published topic."""
        bounds = self._bounds[topic]
        if self._chosen.marks is None or self._first_ms is None:
            return bounds
        span = await bounds_between(self._log, topic, self._first_ms, self._last_ms + SLACK_MS)
        return {n: Bounds(max(each.start, span[n].start), min(each.end, span[n].end)) for n, each in bounds.items()}

    async def _requests(self, topic: str) -> AsyncGenerator[Record]:
        """Yield the requests of the chosen runs on an ingress topic, where it still holds them."""
        for number in sorted(self._bounds[topic]):
            wanted = set(self._origins.get((topic, number), ()))
            found = 0
            async with aclosing(records_at(self._log, topic, number, wanted)) as records:
                async for record in records:
                    found += 1
                    yield record
            if found < len(wanted):
                self._note_gap(f"{len(wanted) - found} requests were removed from {topic}:{number}")

    async def _board(self) -> AsyncGenerator[Record]:
        """Yield the changes of the board: all until the last record of the chosen runs, of one run those of the keys
        that its tasks changed."""
        topic = self._topology.board
        bounds = self._bounds.get(topic, {})
        if bounds and self._first_ms is not None:
            until = await self._log.offsets_at(topic, self._last_ms + SLACK_MS)
            bounds = {n: Bounds(each.start, min(each.end, until[n])) for n, each in bounds.items()}
        keys = await self._changed_keys(bounds) if self._chosen.run_id else None
        async for record in self._read(topic, bounds):
            if keys is None or record.key is None or record.key in keys:
                yield record
        for change in self._embedded_board():
            yield change

    def _embedded_board(self) -> Iterator[Record]:
        """Yield the same of a board in the log's own file, as records that a mirror would have."""
        topic = self._topology.board
        offset = self._bounds[topic][0].end if topic in self._bounds else -1
        if self._embedded is None or self._first_ms is None or offset < 0:
            return
        until_ms, keys = self._last_ms + SLACK_MS, None
        if self._chosen.run_id:
            keys = {value.key for value in self._embedded(until_ms) if value.by.rpartition("/")[2] in self._tasks}
        for value in self._embedded(until_ms):
            if keys is None or value.key in keys:
                change = BoardChange(value.key, value.value or b"null", value.version, value.by, "", value.at_ms)
                new = change_record(change, self._topology)
                yield StoredRecord(topic, 0, offset, value.at_ms, new.key, new.value, new.headers)
                offset += 1

    async def _changed_keys(self, bounds: Mapping[int, Bounds]) -> set[bytes]:
        found = set()
        async for record in self._read(self._topology.board, bounds):
            change = read_board_record(record)
            if isinstance(change, BoardChange) and self._changed_by_run(change):
                found.add(change.key.encode())
        return found

    def _changed_by_run(self, change: BoardChange) -> bool:
        return not self._tasks.isdisjoint((change.op_id.partition(":")[0], change.by.rpartition("/")[2]))

    async def _read(self, topic: str, bounds: Mapping[int, Bounds]) -> AsyncGenerator[Record]:
        """Yield records partition by partition, so that those of one lie together in the file."""
        for number, each in sorted(bounds.items()):
            async with aclosing(read_batches(self._log, topic, {number: each})) as batches:
                async for batch in batches:
                    for record in batch:
                        yield record


def _run_of(record: Record, *, dead: bool) -> str:
    """Return the run that a published record belongs to; "" if it names none."""
    if dead:
        return letter_of(record).run_id
    event = read_event(record)
    return "" if isinstance(event, Unreadable) else event.run_id


def _without_checkpoint(metadata: str) -> str:
    try:
        note = read_note(metadata)
    except CheckpointUnreadable:
        return metadata
    return CommitNote(note.topology, note.offset, (), note.rules).text()
