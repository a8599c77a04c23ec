"""A member of a consumer group. A task of its own follows the group and calls the listener, as a Kafka client does.

Hand-over is incremental: only partitions that move are revoked. Who is expelled (its process was stopped for longer
than its session timeout) loses all and joins again under a new name.
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
        self._held: dict[TopicPartition, int] = {}
        """Ours, by number, until `revoked` has returned."""
        self._going: set[TopicPartition] = set()
        """Those of them `revoked` is being called for."""
        self._unreleased: set[int] = set()
        """Let go of, but the file does not know yet."""
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
        return frozenset(self._held)

    async def poll(self, *, records_max: int, wait_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        """Records of resumed partitions; see `ports.Member`. Raises what a listener raised, LogUnavailable."""
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
        """Store places. Raises Fenced (nothing is stored), InvalidInput for metadata over 4,096 bytes or a bad
        offset, LogUnavailable."""
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
        """The group's place. Raises NotFound for an unknown partition, LogUnavailable."""

        def job(connection: sqlite3.Connection) -> Commit | None:
            number = self._catalog.number(connection, partition)
            return roster.committed(connection, self._name, number, 1).get(number)

        return self._file.read(job, operation="committed")

    def position(self, partition: TopicPartition) -> int | None:
        return self._fetcher.position(partition)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Raises Fenced if the partition is not ours (any more)."""
        self._number(partition, "seek")
        self._fetcher.seek(partition, offset)

    def pause(self, *partitions: TopicPartition) -> None:
        """Raises Fenced if one is not ours (any more)."""
        for partition in partitions:
            self._number(partition, "pause")
            self._fetcher.pause(partition)

    def resume(self, *partitions: TopicPartition) -> None:
        """Raises Fenced if one is not ours (any more)."""
        for partition in partitions:
            self._number(partition, "resume")
            if partition not in self._going:
                self._fetcher.resume(partition)

    async def close(self) -> None:
        """Leave the group, after `revoked` for what was held. Raises what that raised. If the log is gone the group
        notices by itself, a session timeout later."""
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
            if self._held:
                error = await self._call_revoked(list(self._held))
        finally:
            # Whatever happened: a heartbeat for a member that does nothing would keep its partitions from others.
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
            return  # the missing heartbeat says the same, only later

    # -------------------------------------------------------------------------------------------- told by others

    def fail(self, error: Exception, *, for_good: bool = False) -> None:
        """`poll` raises this: once, or for ever."""
        if for_good:
            self._broken = error
        else:
            self._failure = error
        self._fetcher.wakeup.set(())

    def expelled(self) -> None:
        """The heartbeat found that the group took us for dead."""
        self._changed.set()

    # ------------------------------------------------------------------------------------------ following the group

    async def open(self) -> None:
        """Join and begin to follow. Raises LogUnavailable."""
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
                    await self._keep_up()
                except LogUnavailable as error:
                    self.fail(error)
                    self._changed.set()
                    await asyncio.sleep(_RETRY_S)
        except Exception as error:  # noqa: BLE001  # raised by `poll`, from now on
            self.fail(error, for_good=True)

    async def _keep_up(self) -> None:
        """Bring what we hold into line with what the file says; repeated until both agree."""
        while not self._closing:
            if self._unreleased:
                await self._release()
            view = self._file.read(
                lambda connection: roster.view(connection, self._group, self.member_id), operation="follow the group"
            )
            held = self._held.values()
            going = [tp for tp, number in self._held.items() if number not in view.kept]
            # Given to us and meant for somebody else before we had looked: nobody was told, so nobody need be.
            self._unreleased |= view.owned.difference(view.kept, held)
            if self._unreleased:
                continue
            if not view.alive:
                await self._lose()
            elif going:
                await self._give_up(going)
            elif gained := view.kept.difference(held):
                self._gain(gained)
            else:
                if not self._announced:  # so that a member without partitions knows that it is one
                    self._gain(())
                return

    async def _give_up(self, partitions: Sequence[TopicPartition]) -> None:
        error = await self._call_revoked(partitions)
        if error is not None:
            self.fail(error)
        if isinstance(error, WaitTimeout):
            # The batch it waited for may cover partitions that we keep: leave and lose them all, so that whatever is
            # still under way is fenced, and all are handed out anew.
            await self._leave()

    async def _lose(self) -> None:
        """We were expelled: tell the listener (its commits are fenced by now), then join again."""
        if self._held:
            error = await self._call_revoked(list(self._held))
            if error is not None:
                self.fail(error)
        self._unreleased.clear()
        await self._join()

    async def _call_revoked(self, partitions: Sequence[TopicPartition]) -> Exception | None:
        """Call the listener within its deadline. Afterwards the partitions are not ours, whatever it did."""
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
                self._unreleased.add(self._held.pop(partition))
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
        """Take over: paused, at the committed offset or at the first record."""

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
            self._held[partition] = number
            self._fetcher.add(partition, number, offset, paused=True)
        self._announced = True
        try:
            self._listener.assigned(list(gained))
        except Exception as error:  # noqa: BLE001  # the listener's errors are raised by `poll`
            self.fail(error)

    def _number(self, partition: TopicPartition, action: str) -> int:
        number = self._held.get(partition)
        if number is None:
            raise Fenced(
                f"{action} of {partition[0]}:{partition[1]}, which is not ours",
                where=f"group {self._name}",
                expected=f"one of {len(self._held)} assigned partitions",
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
            f"bad offset in a commit of {partition[0]}:{partition[1]}",
            code="invalid",
            expected=f"0 to {catalog.OFFSET_MASK}",
            got=str(place.offset),
        )
