"""Tasks of the mesh that a user's Faust app reads, as a member of the app's own consumer group.

Tables of Faust lie where the partitions of their source are read. So Faust's consumer reads the tasks, and its assignor
shares them out. All else is the worker's: it tracks the tasks, and its commits reach the broker as they are, under the
generation of their assignment. Faust acknowledges nothing here (`acks=False`): its own reckoning of offsets may commit
behind a record that is still in work (faust-streaming issue 606), and is not used.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import faust.types

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import REVOKE_MS_MAX, SESSION_TIMEOUT_MS, Commit, Listener, ReadLog
from mesh.core.errors import Fenced, LogUnavailable, MeshError
from mesh.core.protocol.record import Headers, Record, TopicPartition

WAITING_MAX = 1_000
"""Tasks that wait for the worker. With more of them, Faust's buffer fills, and its consumer pauses the partitions."""
COMMIT_TIMEOUT_MS = 15_000
LOOK_EVERY_S = 1.0
Store = Callable[[Any, str, int, str, Mapping[TopicPartition, Commit]], Awaitable[None]]
"""Stores commits of a group for an aiokafka consumer, under a generation and a member id."""
_log = diagnostics("faust")


class FaustRecord(NamedTuple):
    """A record as Faust read it. `message`: Faust's own, by which its tables know the partition."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    message: Any


class FaustAssignment(NamedTuple):
    """One assignment: its partitions, and the generation and member id with which the broker accepts commits."""

    generation: int
    member_id: str
    partitions: frozenset[TopicPartition]


class FaustGroup:
    """`Groups` of a Faust app: its own group, with one member for each topic of tasks."""

    def __init__(self, app: Any, store: Store) -> None:
        self._app, self._store = app, store
        self._members: dict[str, FaustMember] = {}
        self.log: ReadLog | None = None
        """Where the group's commits are read. Set before `join`."""

    def read(self, topic: str) -> None:
        """Have the app read a topic of tasks. Call it before the app starts, like `app.agent`."""
        self._members[topic] = FaustMember(self._app, topic, self._store)

    async def join(
        self, group: str, topics: Sequence[str], listener: Listener, *, session_timeout_ms: int = SESSION_TIMEOUT_MS
    ) -> "FaustMember":
        """See `Groups.join`. The session timeout is the app's."""
        assert self.log is not None
        (topic,) = topics
        member = self._members[topic]
        member.begin(group, listener, self.log)
        return member


class FaustMember:
    """`Member` for one topic of tasks in the group of a Faust app. Made by `FaustGroup`."""

    def __init__(self, app: Any, topic: str, store: Store) -> None:
        self._app, self._topic, self._store = app, topic, store
        self._group = ""
        self._log: ReadLog | None = None
        self._listener: Listener | None = None
        self._assignment: FaustAssignment | None = None
        self._notified: frozenset[TopicPartition] = frozenset()
        """Partitions of the listener, which is notified of a loss once, by a rebalance or by `close`."""
        self._waiting: dict[TopicPartition, deque[FaustRecord]] = {}
        self._resumed: set[TopicPartition] = set()
        self._positions: dict[TopicPartition, int] = {}
        """Offset of the next record, by partition."""
        self._begun: set[TopicPartition] = set()
        self._sought: dict[TopicPartition, tuple[int, int]] = {}
        """Where Faust was last told to read again, and up to where a record from there must come."""
        self._looked: dict[TopicPartition, int] = {}
        """Positions at the last look."""
        self._look_s = 0.0
        self._some, self._room = asyncio.Event(), asyncio.Event()
        self._commit_lock = asyncio.Lock()
        self._failure: BaseException | None = None
        source = app.topic(
            topic, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", acks=False
        )
        app.agent(source, name=f"mesh-{topic}")(self._read)
        app.on_partitions_assigned.connect(self._assigned, weak=False)
        app.on_partitions_revoked.connect(self._revoked, weak=False)

    def begin(self, group: str, listener: Listener, log: ReadLog) -> None:
        """Tell a listener of the present assignment and of all later ones."""
        self._group, self._listener, self._log = group, listener, log
        if self._assignment is not None:
            self._notify(self._assignment)

    # --------------------------------------------------------------------------------------------------- assignment

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """See `Member.assignment`."""
        return frozenset() if self._assignment is None else self._assignment.partitions

    async def _assigned(self, app: Any, assigned: Any, **_: Any) -> None:
        partitions = frozenset(TopicPartition(*tp) for tp in assigned if tp[0] == self._topic)
        coordinator = _aiokafka(app)._coordinator
        self._assignment = FaustAssignment(coordinator.generation, coordinator.member_id, partitions)
        if self._listener is not None:
            self._notify(self._assignment)

    def _notify(self, assignment: FaustAssignment) -> None:
        assert self._listener is not None
        self._notified = assignment.partitions
        try:
            self._listener.assigned(sorted(assignment.partitions))
        except Exception as error:  # noqa: BLE001  # Faust would crash the app without the worker's end; `poll` raises it
            self._failure = error

    async def _revoked(self, app: Any, revoked: Any, **_: Any) -> None:
        await self._release()

    async def _release(self) -> None:
        """Notify the listener, then refuse commits: a later one would belong to the next generation."""
        self._waiting.clear()
        self._resumed.clear()
        self._room.set()
        notified, self._notified = self._notified, frozenset()
        if notified and self._listener is not None:
            try:
                async with asyncio.timeout(REVOKE_MS_MAX / 1000):
                    await self._listener.revoked(sorted(notified))
            except Exception as error:  # noqa: BLE001  # a rebalance goes on; `poll` raises it
                self._failure = error
        self._assignment = None
        for each in (self._positions, self._begun, self._sought, self._looked):
            each.clear()
        async with self._commit_lock:
            pass

    # ------------------------------------------------------------------------------------------------------ reading

    async def _read(self, stream: Any) -> None:
        """Take over the records of the app's stream (its agent for this topic)."""
        async for event in stream.events():
            message = event.message
            while sum(map(len, self._waiting.values())) >= WAITING_MAX:
                self._room.clear()
                await self._room.wait()
            place = TopicPartition(message.topic, message.partition)
            is_ours = message.generation_id == self._app.consumer_generation_id and place in self.assignment
            if is_ours:
                await self._take_over(place, message)

    async def _take_over(self, place: TopicPartition, message: Any) -> None:
        """Put a record behind those that wait. Faust goes back to a record that it left out."""
        expected = self._positions.get(place)
        if expected is not None and message.offset < expected:
            return
        if expected is not None and message.offset > expected:
            since, until = self._sought.get(place, (-1, -1))
            if since != expected:
                await self._seek(place, expected, until=message.offset)
                return
            if message.offset > until:
                return  # it was on its way when Faust went back
        self._positions[place] = message.offset + 1
        self._waiting.setdefault(place, deque()).append(_record_of(message))
        self._some.set()

    async def _seek(self, place: TopicPartition, offset: int, *, until: int) -> None:
        """Let Faust read again from an offset. Up to `until`, the next record that comes is the next there is."""
        _log.warning(
            "Faust left out a record; it is read again", topic=place.topic, partition=place.partition, at=offset
        )
        self._sought[place] = (offset, until)
        await self._app.consumer.seek(faust.types.TP(*place), offset)

    async def _look(self) -> None:
        """Once a second without records: let Faust read again what it has not delivered since the last look."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._look_s or self._log is None:
            return
        self._look_s = now_s + LOOK_EVERY_S
        ends = await self._log.bounds(self._topic)
        for place in self._resumed.copy():
            position, end = self._positions.get(place), ends[place.partition].end
            if position is not None and position < end and self._looked.get(place) == position:
                await self._seek(place, position, until=end - 1)
        self._looked = dict(self._positions)

    async def poll(self, *, records_max: int, wait_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """See `Member.poll`."""
        self._raise_failure()
        taken = self._take(records_max)
        if not taken:
            self._some.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_ms / 1000):
                    await self._some.wait()
            self._raise_failure()
            taken = self._take(records_max)
        if not taken:
            await self._look()
        return taken

    def _take(self, records_max: int) -> dict[TopicPartition, Sequence[Record]]:
        taken: dict[TopicPartition, Sequence[Record]] = {}
        for place in self._resumed:
            waiting = self._waiting.get(place)
            if waiting and records_max > 0:
                number = min(records_max, len(waiting))
                taken[place] = [waiting.popleft() for _ in range(number)]
                records_max -= number
        self._room.set()
        return taken

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def position(self, partition: TopicPartition) -> int | None:
        """See `Member.position`."""
        waiting = self._waiting.get(partition)
        return waiting[0].offset if waiting else self._positions.get(partition)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Skip what is before an offset. Faust itself begins at the commit."""
        self._require(partition)
        waiting = self._waiting.get(partition)
        while waiting and waiting[0].offset < offset:
            waiting.popleft()
        self._positions[partition] = max(offset, self._positions.get(partition, 0))

    def pause(self, *partitions: TopicPartition) -> None:
        """See `Member.pause`."""
        self._require(*partitions)
        self._resumed.difference_update(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """See `Member.resume`."""
        self._require(*partitions)
        self._resumed.update(partitions)
        self._some.set()

    # ------------------------------------------------------------------------------------------------------ commits

    async def commit(self, commits: Mapping[TopicPartition, Commit]) -> None:
        """See `Member.commit`. Changes that the tasks made in tables are on their changelogs before."""
        if not commits:
            return
        thread = self._app.consumer._thread
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_MS / 1000), self._commit_lock:
                assignment = self._require(*commits)
                await self._app.producer.flush()
                generation, member_id, _ = assignment
                consumer = _aiokafka(self._app)
                await thread.call_thread(self._store, consumer, self._group, generation, member_id, commits)
                for place, commit in commits.items():
                    await self._begin_at(place, commit.offset)
        except TimeoutError as error:
            what = f"a commit of group {self._group} took longer than {COMMIT_TIMEOUT_MS} ms"
            raise LogUnavailable(what, where=self._topic) from error

    async def _begin_at(self, place: TopicPartition, offset: int) -> None:
        """Note where a partition begins: at its first commit of this assignment."""
        waiting = self._waiting.get(place)
        if place not in self._begun and place in self.assignment:
            self._begun.add(place)
            if waiting and waiting[0].offset > offset:
                until = waiting[0].offset
                waiting.clear()
                self._positions[place] = offset
                await self._seek(place, offset, until=until)
            self._positions.setdefault(place, offset)

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """See `Member.committed`."""
        assert self._log is not None
        return (await self._log.committed(self._group, self._topic)).get(partition.partition)

    def _require(self, *partitions: TopicPartition) -> FaustAssignment:
        """Return the assignment that has all of these partitions. Raises Fenced."""
        assignment = self._assignment
        if assignment is None or not assignment.partitions.issuperset(partitions):
            names = ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(partitions))
            raise Fenced(f"the Faust app is not the owner of {names}", where=f"group {self._group}")
        return assignment

    async def close(self) -> None:
        """See `Member.close`. The app itself stays in its group until it stops."""
        await self._release()
        self._listener = None


def _aiokafka(app: Any) -> Any:
    """Return the consumer of a Faust app that has started. Raises MeshError for a driver other than aiokafka."""
    consumer = getattr(getattr(app.consumer, "_thread", None), "_consumer", None)
    if consumer is None:
        raise MeshError(
            "the Faust app does not read by aiokafka",
            where=f"Faust app {app.conf.id}",
            remedy="Name the broker as kafka://HOST:PORT or aiokafka://HOST:PORT",
        )
    return consumer


def _record_of(message: Any) -> FaustRecord:
    """Return a message as a record. Faust has its time in seconds."""
    at_ms, headers = round(message.timestamp * 1_000), tuple(message.headers or ())
    return FaustRecord(
        message.topic, message.partition, message.offset, at_ms, message.key, message.value, headers, message
    )
