"""A member of a consumer group. Its own task follows the group and calls the listener, as a Kafka client does.

Hand-over is incremental: only partitions that move are revoked. An expelled member (its process was stopped for longer
than its session timeout) loses all partitions and joins again under a new name.
"""

import asyncio
import os
import secrets
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence

from mesh.adapters.deadline import tolerant_timeout
from mesh.adapters.ports import REVOKE_MS_MAX, Clock, Commit, Listener
from mesh.adapters.sqlite.groups import roster
from mesh.adapters.sqlite.groups.heartbeat import Heartbeat
from mesh.adapters.sqlite.partitions import catalog
from mesh.adapters.sqlite.partitions.catalog import Catalog, Topic
from mesh.adapters.sqlite.partitions.fetch import Fetcher
from mesh.adapters.sqlite.storage.file import SqliteFile
from mesh.core.errors import Fenced, InvalidInput, LogUnavailable, WaitTimeout
from mesh.core.protocol.record import Record, TopicPartition

METADATA_BYTES_MAX = 4_096
_TIMEOUT_MS = 10_000
_LEAVE_TIMEOUT_MS = 3_000
_RETRY_S = 0.2


class SqliteMember:
    """See `ports.Member`. Made by `SqliteLog.join`."""

    def __init__(
        self,
        file: SqliteFile,
        group: str,
        topics: Sequence[Topic],
        listener: Listener,
        *,
        session_timeout_ms: int,
        catalog: Catalog,
        heartbeat: Heartbeat,
        clock: Clock,
    ) -> None:
        self._file = file
        self._name = group
        self._topics = topics
        self._listener = listener
        self.session_timeout_ms = session_timeout_ms
        self._catalog = catalog
        self._heartbeat = heartbeat
        self._clock = clock
        self.member_id = ""
        self._group = 0
        self._fetcher = Fetcher(file)
        self._changed = file.subscribe(())
        self._assigned: dict[TopicPartition, int] = {}
        """Partitions of this member with their numbers, until `revoked` has returned."""
        self._going: set[TopicPartition] = set()
        """Partitions for which `revoked` is running."""
        self._unreleased: set[int] = set()
        """Numbers of partitions that are given up, but not in the file yet."""
        self._announced = False
        self._failure: Exception | None = None
        self._broken: Exception | None = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------------- as a member

    @property
    def closed(self) -> bool:
        return self._closing

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._assigned)

    async def poll(self, *, records_max: int, wait_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """Return records of resumed partitions; see `ports.Member`. Raises what a listener raised, LogUnavailable."""
        until = time.monotonic() + wait_ms / 1000
        while True:
            self._raise_failure()
            taken = await self._fetcher.poll(records_max, (until - time.monotonic()) * 1000)
            if taken:
                return taken
            if time.monotonic() >= until:
                self._raise_failure()
                return {}

    async def commit(self, commits: Mapping[TopicPartition, Commit]) -> None:
        """Store commits.

        Raises Fenced, in which case nothing is stored, LogUnavailable, and InvalidInput for metadata over 4,096 bytes
        or an invalid offset.
        """
        numbers = {}
        for partition, place in commits.items():
            _check(partition, place)
            numbers[self._number(partition, "commit")] = place
        if not numbers:
            return
        group, member = self._group, self.member_id
        try:
            await self._file.write(
                lambda connection: roster.commit(connection, group, member, numbers),
                operation="commit",
                timeout_ms=_TIMEOUT_MS,
                wakes=(),
            )
        except Fenced:
            self._changed.set()
            raise

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """Return the group's commit. Raises NotFound for an unknown partition, LogUnavailable."""

        def job(connection: sqlite3.Connection) -> Commit | None:
            number = self._catalog.number(connection, partition)
            return roster.committed(connection, self._name, number, 1).get(number)

        return self._file.read(job, operation="committed")

    def position(self, partition: TopicPartition) -> int | None:
        return self._fetcher.position(partition)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """See `ports.Member`. Raises Fenced if the partition is not assigned."""
        self._number(partition, "seek")
        self._fetcher.seek(partition, offset)

    def pause(self, *partitions: TopicPartition) -> None:
        """See `ports.Member`. Raises Fenced if one is not assigned."""
        for partition in partitions:
            self._number(partition, "pause")
            self._fetcher.pause(partition)

    def resume(self, *partitions: TopicPartition) -> None:
        """See `ports.Member`. Raises Fenced if one is not assigned."""
        for partition in partitions:
            self._number(partition, "resume")
            if partition not in self._going:
                self._fetcher.resume(partition)

    async def close(self) -> None:
        """Leave the group, after `revoked` for the assigned partitions. Raises the error of that call.

        Without a log, the group notices after a session timeout.
        """
        if self._closing:
            return
        self._closing = True
        self._changed.set()
        error = None
        try:
            if self._task is not None:
                await asyncio.wait([self._task], timeout=self.session_timeout_ms / 1000)
                self._task.cancel()
                await asyncio.wait([self._task], timeout=1)
            if self._assigned:
                error = await self._call_revoked(list(self._assigned))
        finally:
            # In any case: heartbeats of an inactive member would keep its partitions from others.
            self._heartbeat.discard(self)
            self._fetcher.close()
            self._changed.close()
        await self._leave()
        if error is None and not isinstance(self._failure, LogUnavailable):
            error = self._failure
        if error is not None:
            raise error

    async def _leave(self) -> None:
        group, member = self._group, self.member_id
        try:
            await self._file.write(
                lambda connection: roster.leave(connection, group, member),
                operation="leave the group",
                timeout_ms=_LEAVE_TIMEOUT_MS,
                wakes=(roster.channel(group),),
            )
        except LogUnavailable:
            return  # the missing heartbeat has the same effect, only later

    # -------------------------------------------------------------------------------------------------- callbacks

    def fail(self, error: Exception, *, for_good: bool = False) -> None:
        """Make `poll` raise this error, once or always."""
        if for_good:
            self._broken = error
        else:
            self._failure = error
        self._fetcher.wakeup.set(())

    def expelled(self) -> None:
        """Note that the group has removed this member; called by the heartbeat."""
        self._changed.set()

    # ------------------------------------------------------------------------------------------ following the group

    async def open(self) -> None:
        """Join the group and begin to follow it. Raises LogUnavailable."""
        await self._join()
        self._heartbeat.add(self)
        self._task = asyncio.get_running_loop().create_task(self._follow(), name=f"group {self._name}")

    async def _join(self) -> None:
        member = f"{os.getpid()}-{secrets.token_hex(6)}"
        wakes: list[int] = []

        def job(connection: sqlite3.Connection) -> int:
            group = roster.join(
                connection,
                self._name,
                member,
                self._topics,
                opener=self._file.opener,
                is_dead=self._file.is_dead,
                session_timeout_ms=self.session_timeout_ms,
                now_ms=self._clock.monotonic_ms(),
            )
            wakes[:] = [roster.channel(group)]
            return group

        self._group = await self._file.write(job, operation="join the group", timeout_ms=_TIMEOUT_MS, wakes=wakes)
        self.member_id = member
        self._changed.channels = {roster.channel(self._group)}
        self._changed.set()

    async def _follow(self) -> None:
        try:
            while not self._closing:
                await self._changed.wait()
                self._changed.clear()
                try:
                    await self._synchronize()
                except LogUnavailable as error:
                    self.fail(error)
                    self._changed.set()
                    await asyncio.sleep(_RETRY_S)
        except Exception as error:  # noqa: BLE001  # raised by `poll`, from now on
            self.fail(error, for_good=True)

    async def _synchronize(self) -> None:
        """Give up and take over partitions until the assignment is that of the file."""
        while not self._closing:
            if self._unreleased:
                await self._release()
            view = self._file.read(
                lambda connection: roster.view(connection, self._group, self.member_id), operation="follow the group"
            )
            assigned = self._assigned.values()
            going = [tp for tp, number in self._assigned.items() if number not in view.kept]
            # Assigned and taken away again between two looks: the listener was not notified, and need not be.
            self._unreleased |= view.owned.difference(view.kept, assigned)
            if self._unreleased:
                continue
            if not view.alive:
                await self._lose()
            elif going:
                await self._give_up(going)
            elif gained := view.kept.difference(assigned):
                self._gain(gained)
            else:
                if not self._announced:  # so that the listener learns that there are no partitions
                    self._gain(())
                return

    async def _give_up(self, partitions: Sequence[TopicPartition]) -> None:
        error = await self._call_revoked(partitions)
        if error is not None:
            self.fail(error)
        if isinstance(error, WaitTimeout):
            # The batch it waited for may hold records of partitions that stay: leave and lose them all, so that
            # commits still under way are fenced, and all partitions are assigned again.
            await self._leave()

    async def _lose(self) -> None:
        """Notify the listener of the expulsion (its commits are fenced by now), then join again."""
        if self._assigned:
            error = await self._call_revoked(list(self._assigned))
            if error is not None:
                self.fail(error)
        self._unreleased.clear()
        await self._join()

    async def _call_revoked(self, partitions: Sequence[TopicPartition]) -> Exception | None:
        """Call the listener within its deadline, then give up the partitions in any case."""
        self._going.update(partitions)
        for partition in partitions:
            self._fetcher.pause(partition)
        caught: Exception | None = None
        try:
            async with tolerant_timeout(REVOKE_MS_MAX) as limit:
                await self._listener.revoked(partitions)
        except Exception as error:  # noqa: BLE001  # the listener's errors are raised by `poll`
            caught = error
            if limit.expired():
                caught = WaitTimeout(
                    f"the listener's `revoked` did not return within {REVOKE_MS_MAX} ms and was cancelled",
                    where=f"group {self._name}",
                    remedy="Drain for less long, or find what makes the log slow",
                )
        finally:
            for partition in partitions:
                self._unreleased.add(self._assigned.pop(partition))
                self._fetcher.remove(partition)
            self._going.difference_update(partitions)
        return caught

    async def _release(self) -> None:
        group, member, numbers = self._group, self.member_id, list(self._unreleased)
        await self._file.write(
            lambda connection: roster.release(connection, group, member, numbers),
            operation="release partitions",
            timeout_ms=_TIMEOUT_MS,
            wakes=(roster.channel(group),),
        )
        self._unreleased.difference_update(numbers)

    def _gain(self, numbers: Iterable[int]) -> None:
        """Take over partitions: paused, at the committed offset or at the first record."""

        def places(connection: sqlite3.Connection) -> dict[TopicPartition, tuple[int, int]]:
            wanted = sorted(numbers)
            starts = catalog.ends(connection, wanted)
            found = {}
            for number in wanted:
                place = roster.committed(connection, self._name, number, 1).get(number)
                offset = starts[number].start if place is None else place.offset
                found[self._catalog.partition(connection, number)] = (number, offset)
            return found

        gained = self._file.read(places, operation="take over partitions")
        for partition, (number, offset) in gained.items():
            self._assigned[partition] = number
            self._fetcher.add(partition, number, offset, paused=True)
        self._announced = True
        try:
            self._listener.assigned(list(gained))
        except Exception as error:  # noqa: BLE001  # the listener's errors are raised by `poll`
            self.fail(error)

    def _number(self, partition: TopicPartition, action: str) -> int:
        number = self._assigned.get(partition)
        if number is None:
            raise Fenced(
                f"{action} of {partition[0]}:{partition[1]}, which is not assigned here",
                where=f"group {self._name}",
                expected=f"one of {len(self._assigned)} assigned partitions",
                remedy="Drop what was read of it; its new owner reads it again",
            )
        return number

    def _raise_failure(self) -> None:
        if self._closing:
            raise LogUnavailable("the member is closed", where=f"group {self._name}")
        if self._broken is not None:
            raise self._broken
        if self._failure is not None:
            error, self._failure = self._failure, None
            raise error


def _check(partition: TopicPartition, place: Commit) -> None:
    size = len(place.metadata.encode())
    if size > METADATA_BYTES_MAX:
        raise InvalidInput(
            f"commit metadata of {partition[0]}:{partition[1]} is too long",
            code="too_large",
            expected=f"at most {METADATA_BYTES_MAX} bytes",
            got=f"{size} bytes",
        )
    if not 0 <= place.offset <= catalog.OFFSET_MASK:
        raise InvalidInput(
            f"invalid offset in a commit of {partition[0]}:{partition[1]}",
            code="invalid",
            expected=f"0 to {catalog.OFFSET_MASK}",
            got=str(place.offset),
        )
