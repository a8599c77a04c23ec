"""Members of a consumer group: the assignment of partitions, and the commits that count.

aiokafka rebalances eagerly: each time, all partitions are revoked and assigned again. It swallows errors of its
callbacks, sends no heartbeat until `on_partitions_assigned` returns, and delivers records meanwhile. Hence all
partitions are paused there first, and the listener is called at once. Every commit has the generation and the member id
of *this* assignment.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, errors
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.structs import OffsetAndMetadata
from aiokafka.structs import TopicPartition as KafkaPartition

from mesh.adapters.kafka import commits as group_commits
from mesh.adapters.kafka.connection import MEMBER_ROLE, Connection, ended_within
from mesh.adapters.ports import REVOKE_MS_MAX, Commit, Listener
from mesh.core.errors import ConfigInvalid, Fenced, InvalidInput, LogUnavailable, MeshError
from mesh.core.protocol.record import Record, TopicPartition

METADATA_BYTES_MAX = 4_096
HEARTBEAT_MS = 500
"""Interval of heartbeats. Their responses report that another member has left, so no hand-over is quicker."""
POLL_GAP_MS_MAX = 2**31 - 1
"""Time without a poll after which aiokafka leaves the group, 5 minutes by default. A worker whose lanes are full does
not poll until a task has ended, which may take longer. Heartbeats prove that a member lives: they come from the same
event loop, and a blocked loop misses them."""
CLOSE_TIMEOUT_MS = 3_000
"""Time in which aiokafka must leave the group; then the member leaves without its help. With a broker that hangs, a
worker ends within 25 s: drain, last answers, this, and the close of the log."""
FETCH_WAIT_MS = 250
"""Longest time that the broker delays an empty fetch, and that a resumed partition waits for its first one."""


class Assignment(NamedTuple):
    """One assignment: its partitions, and the generation and member id with which the broker accepts commits."""

    generation: int
    member_id: str
    partitions: frozenset[TopicPartition]


class KafkaMember:
    """`Member` on aiokafka. Made by `KafkaLog.join`."""

    def __init__(
        self,
        connection: Connection,
        group: str,
        topics: Sequence[str],
        listener: Listener,
        *,
        session_timeout_ms: int,
        record_bytes_max: int,
    ) -> None:
        self._connection = connection
        self._group = group
        self._topics = list(topics)
        self._listener = listener
        self._session_timeout_ms = session_timeout_ms
        self._assignment: Assignment | None = None
        self._notified: frozenset[TopicPartition] = frozenset()
        """Partitions of the listener, which is notified of a loss once, either by a rebalance or by `close`."""
        self._commit_lock = asyncio.Lock()
        self._release_lock = asyncio.Lock()
        self._failure: BaseException | None = None
        self._spent: LogUnavailable | None = None
        self.closed = False
        self._closing: asyncio.Task[None] | None = None
        # A class for each member: the assignor keeps the assignment in its class, which all members would share.
        assignor = type("Sticky", (StickyPartitionAssignor,), {"member_assignment": None})
        self._consumer = AIOKafkaConsumer(
            **connection.arguments(MEMBER_ROLE),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            partition_assignment_strategy=(assignor,),
            session_timeout_ms=session_timeout_ms,
            heartbeat_interval_ms=min(HEARTBEAT_MS, session_timeout_ms // 5),
            rebalance_timeout_ms=max(session_timeout_ms, 30_000),
            max_poll_interval_ms=POLL_GAP_MS_MAX,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=max(1_048_576, record_bytes_max),
        )

    async def start(self) -> None:
        """Connect and begin to join. Raises LogUnavailable."""
        try:
            await self._connection.start(f"connect a member of {self._group}", self._consumer.start())
        except BaseException:
            await self._end(1_000)
            raise
        self._coordinator._do_fetch_commit_offsets = self._fetch
        self._consumer.subscribe(self._topics, listener=_Rebalance(self._lose, self._gain))

    @property
    def _coordinator(self) -> Any:
        return self._consumer._coordinator

    # -------------------------------------------------------------------------------------------------- assignment

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        """See `Member.assignment`."""
        return self._assignment.partitions if self._assignment else frozenset()

    async def _gain(self, partitions: Iterable[KafkaPartition]) -> None:
        self._consumer.pause(*partitions)
        if self.closed:
            return
        mine = frozenset(TopicPartition(*tp) for tp in partitions)
        self._assignment = Assignment(self._coordinator.generation, self._coordinator.member_id, mine)
        self._notified = mine
        try:
            self._listener.assigned(sorted(mine))
        except Exception as error:  # noqa: BLE001  # aiokafka would only log it; `poll` raises it
            self._failure = error

    async def _lose(self, _partitions: Iterable[KafkaPartition]) -> None:
        await self._release()

    async def _release(self) -> None:
        """Notify the listener, then refuse commits: a later one would belong to the next generation."""
        async with self._release_lock:  # A `close` during a rebalance waits for the last commits of that.
            notified, self._notified = self._notified, frozenset()
            if notified:
                try:
                    await self._call_revoked(sorted(notified))
                except Exception as error:  # noqa: BLE001  # aiokafka would only log it; `poll` raises it
                    self._failure = error
            self._assignment = None
            # A commit under way ends first (it has a deadline), so that none is sent while we join again.
            async with self._commit_lock:
                pass

    async def _call_revoked(self, partitions: list[TopicPartition]) -> None:
        limit = asyncio.timeout(REVOKE_MS_MAX / 1000)
        try:
            async with limit:
                await self._listener.revoked(partitions)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise MeshError(
                "the release of revoked partitions took too long and was cancelled",
                where=self._where,
                expected=f"at most {REVOKE_MS_MAX} ms",
                remedy="Drain for less long, or find what makes the log slow",
            ) from error

    # ------------------------------------------------------------------------------------------------------ reading

    async def poll(self, *, records_max: int, wait_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """See `Member.poll`."""
        if self._spent is not None:
            raise self._spent
        self._raise_failure()
        try:
            fetched = await self._consumer.getmany(timeout_ms=wait_ms, max_records=records_max)
        except errors.InvalidSessionTimeoutError as error:
            raise ConfigInvalid(
                "the broker refuses the session timeout",
                where=self._where,
                expected="group.min.session.timeout.ms (default 6000) to group.max.session.timeout.ms",
                got=f"{self._session_timeout_ms} ms",
                remedy="Set another session_timeout_ms, or change group.min.session.timeout.ms on every broker",
            ) from error
        except errors.KafkaError as error:
            # The library may have dropped fetched records of other partitions: this member must not go on.
            self._spent = self._connection.unavailable(f"poll of group {self._group}", str(error))
            self._spent.remedy += ", then close this member and join again"
            raise self._spent from error
        except errors.ConsumerStoppedError as error:
            raise LogUnavailable("the member is closed", where=self._where) from error
        self._raise_failure()
        if not wait_ms:
            # Without a wait the library does not yield to the loop: heartbeats and fetches would starve.
            await asyncio.sleep(0)
        return {TopicPartition(*tp): records for tp, records in fetched.items()}

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def position(self, partition: TopicPartition) -> int | None:
        """See `Member.position`."""
        subscription = self._consumer._subscription.subscription
        state = subscription and subscription.assignment and subscription.assignment.state_value(partition)
        return state.position if state and state.has_valid_position else None

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `Member.seek`. Raises Fenced when the partition is not ours."""
        self._require(partition)
        self._consumer.seek(KafkaPartition(*partition), offset)

    def pause(self, *partitions: TopicPartition) -> None:
        """See `Member.pause`. Raises Fenced when one is not ours. Drops what was fetched ahead: not for every batch."""
        self._require(*partitions)
        self._consumer.pause(*(KafkaPartition(*tp) for tp in partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        """See `Member.resume`. Raises Fenced when one is not ours."""
        self._require(*partitions)
        self._consumer.resume(*(KafkaPartition(*tp) for tp in partitions))

    # ------------------------------------------------------------------------------------------------------ commits

    async def commit(self, commits: Mapping[TopicPartition, Commit]) -> None:
        """See `Member.commit`. Raises Fenced, LogUnavailable, and InvalidInput for metadata that is too long."""
        for tp, commit in commits.items():
            size = len(commit.metadata.encode())
            if size > METADATA_BYTES_MAX:
                raise InvalidInput(
                    "the metadata of a commit is too long",
                    code="too_large",
                    where=f"{tp.topic}/{tp.partition}",
                    expected=f"at most {METADATA_BYTES_MAX} bytes",
                    got=f"{size} bytes",
                )
        if not commits:
            return
        timeout_ms = self._connection.request_timeout_ms
        try:
            async with asyncio.timeout(timeout_ms / 1000), self._commit_lock:
                assignment = self._require(*commits)
                await self._connection.ask(f"commit of group {self._group}", lambda: self._store(assignment, commits))
        except TimeoutError as error:
            raise self._connection.late(f"commit of group {self._group}", timeout_ms) from error

    async def _store(self, assignment: Assignment, commits: Mapping[TopicPartition, Commit]) -> None:
        try:
            await group_commits.store(self._send, self._group, assignment.generation, assignment.member_id, commits)
        except group_commits.COORDINATOR_MOVED:
            self._coordinator.coordinator_dead()
            raise
        except group_commits.STALE_MEMBER as error:
            # Rejoin now instead of at the next heartbeat, unless that has happened already: leaving a generation that
            # was just joined would cost the whole group another rebalance.
            if self._coordinator.generation == assignment.generation:
                if isinstance(error, errors.RebalanceInProgressError):
                    self._coordinator.request_rejoin()
                else:
                    self._coordinator.reset_generation()
            raise self._fenced_error(tuple(commits), f"the broker says {type(error).__name__}") from error

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """See `Member.committed`."""
        stored = await self._connection.ask(
            f"read the commits of group {self._group}", lambda: self._fetch([KafkaPartition(*partition)])
        )
        found = stored.get(KafkaPartition(*partition))
        return Commit(*found) if found else None

    async def _fetch(self, partitions: Iterable[KafkaPartition]) -> dict[KafkaPartition, OffsetAndMetadata]:
        """Replace aiokafka's own fetch, which reads "try again" as "never committed" (see `commits`)."""
        mine = [TopicPartition(*tp) for tp in partitions]
        stored = await group_commits.read(self._consumer._client, self._group, mine)
        return {KafkaPartition(*tp): OffsetAndMetadata(*commit) for tp, commit in stored.items()}

    async def _send(self, request: Any) -> Any:
        """Send a request to the group's coordinator."""
        await self._coordinator.ensure_coordinator_known()
        return await self._coordinator._send_req(request)

    def _require(self, *partitions: TopicPartition) -> Assignment:
        """Return the assignment that has all of these partitions. Raises Fenced."""
        assignment = self._assignment
        if assignment is None or not assignment.partitions.issuperset(partitions):
            raise self._fenced_error(
                partitions, "they were revoked" if assignment is None else "not assigned in this generation"
            )
        return assignment

    def _fenced_error(self, partitions: Iterable[TopicPartition], why: str) -> Fenced:
        names = ", ".join(f"{tp.topic}/{tp.partition}" for tp in sorted(partitions))
        return Fenced(
            f"not the owner of {names}",
            where=self._where,
            got=why,
            remedy="Drop the work on them: their new owner reads from the last commit",
        )

    @property
    def _where(self) -> str:
        return f"{self._connection.url} group {self._group}"

    # ------------------------------------------------------------------------------------------------------- leaving

    async def close(self) -> None:
        """See `Member.close`. Once begun it ends, even if its caller is cancelled.

        A member that is only half closed would keep its partitions by heartbeats, without reading them.
        """
        if self._closing is None:
            self.closed = True
            self._closing = asyncio.get_running_loop().create_task(self._close(), name=f"close {self._group}")
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._release()
        await self._end(min(CLOSE_TIMEOUT_MS, self._connection.request_timeout_ms))

    async def _end(self, timeout_ms: int) -> None:
        consumer = self._consumer
        if not await ended_within(timeout_ms, consumer.stop()):
            # It hung, for example in a join that waits for other members: leave the group directly.
            for task in self._tasks():
                task.cancel()
            if consumer._coordinator is not None:
                await ended_within(1_000, consumer._coordinator._maybe_leave_group())
            await ended_within(1_000, consumer._client.close())
        for task in self._tasks():
            if task.done() and not task.cancelled():
                task.exception()  # Read, so that asyncio does not log a lost error: `poll` has raised it.

    def _tasks(self) -> list[asyncio.Task[Any]]:
        coordinator, fetcher = self._consumer._coordinator, self._consumer._fetcher
        names = ("_coordination_task", "_heartbeat_task", "_commit_refresh_task")
        found = [getattr(coordinator, name, None) for name in names] + [getattr(fetcher, "_fetch_task", None)]
        return [task for task in found if task is not None]


OnChange = Callable[[Iterable[KafkaPartition]], Coroutine[Any, Any, None]]


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """A listener that passes aiokafka's callbacks on."""

    def __init__(self, lose: OnChange, gain: OnChange) -> None:
        self._lose, self._gain = lose, gain

    async def on_partitions_revoked(self, revoked: Iterable[KafkaPartition]) -> None:
        await self._lose(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[KafkaPartition]) -> None:
        await self._gain(assigned)
