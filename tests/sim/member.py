"""A member of a group, the client's side: follows what the coordinator says, tells its listener, fetches, commits."""

import asyncio
from collections.abc import Mapping, Sequence

from mesh.adapters.ports import REVOKE_MS_MAX, Commit, Listener
from mesh.core.errors import Fenced, InvalidInput, LogUnavailable, WaitTimeout
from mesh.core.protocol.record import Record, TopicPartition
from tests.sim.broker import Broker
from tests.sim.fetch import Fetcher
from tests.sim.group import Group
from tests.sim.world import Host

METADATA_BYTES_MAX = 4_096


class SimMember:
    """See `ports.Member`. Made by `SimLog.join`."""

    def __init__(
        self, broker: Broker, host: Host, group: str, topics: Sequence[str], listener: Listener, session_timeout_ms: int
    ) -> None:
        self.host = host
        self.topics = tuple(topics)
        self.session_timeout_ms = session_timeout_ms
        self.id = ""
        self.given_up = False
        self._broker = broker
        self._world = broker.world
        self._group: Group = broker.group(group)
        self._where = f"sim group {group}"
        self._listener = listener
        self._fetcher = Fetcher(broker, host)
        self._held: dict[TopicPartition, None] = {}
        self._going: set[TopicPartition] = set()
        self._changed = asyncio.Event()
        self._announced = False
        self._failure: Exception | None = None
        self._broken: Exception | None = None
        self._closing = False
        self._closed = False
        self._follower: asyncio.Task[None] | None = None

    # ------------------------------------------------------------------------------------------------ as ports.Member

    @property
    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset(self._held)

    async def poll(self, *, records_max: int, wait_ms: int) -> Mapping[TopicPartition, Sequence[Record]]:
        self._raise_failure()
        return await self._fetcher.poll(records_max, wait_ms, self._raise_failure)

    async def commit(self, commits: Mapping[TopicPartition, Commit]) -> None:
        for tp, place in commits.items():
            size = len(place.metadata.encode())
            if size > METADATA_BYTES_MAX:
                raise InvalidInput(f"metadata of {size} bytes, at most {METADATA_BYTES_MAX}", code="too_large")
            self._check_held(tp, "commit")
        if commits:
            member_id, stored = self.id, dict(commits)
            await self._world.ask(
                self.host, self._where, lambda: self._group.commit(member_id, stored), where=f"{self._where} commit"
            )

    async def committed(self, partition: TopicPartition) -> Commit | None:
        return await self._world.ask(
            self.host, self._where, lambda: self._group.commits.get(partition), where=f"{self._where} committed"
        )

    def position(self, partition: TopicPartition) -> int | None:
        return self._fetcher.positions.get(partition)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._check_held(partition, "seek")
        self._fetcher.positions[partition] = offset
        self._fetcher.wake()

    def pause(self, *partitions: TopicPartition) -> None:
        for tp in partitions:
            self._check_held(tp, "pause")
            self._fetcher.paused.add(tp)

    def resume(self, *partitions: TopicPartition) -> None:
        for tp in partitions:
            self._check_held(tp, "resume")
            if tp not in self._going:
                self._fetcher.paused.discard(tp)
        self._fetcher.wake()

    async def close(self) -> None:
        self._world.check()
        if self._closing:
            return
        self._closing = True
        self._changed.set()
        try:
            error = await self._part()
        finally:  # also when that was cancelled: half closed, it would keep its partitions for ever
            self._closed = True
            self._fetcher.wake()
            self._fall_silent()
        error = error or (None if isinstance(self._failure, LogUnavailable) else self._failure)
        if error is not None:
            raise error

    async def _part(self) -> Exception | None:
        """Let go, and say farewell. Answers what the listener raised."""
        error: Exception | None = None
        if self._follower is not None:
            await asyncio.wait([self._follower], timeout=self.session_timeout_ms / 1000)
            self._follower.cancel()
            await asyncio.wait([self._follower], timeout=1)
        if self._held:
            error = await self._call_revoked(list(self._held))
        self._closed = True
        self._fetcher.wake()
        try:
            member_id = self.id
            await self._world.ask(self.host, self._where, lambda: self._group.leave(member_id), where=self._where)
        except LogUnavailable:
            pass  # the missing heartbeat says the same, only later
        return error

    # ---------------------------------------------------------------------------------------- following the coordinator

    def poke(self) -> None:
        """The coordinator has news."""
        self._changed.set()

    async def open(self) -> None:
        """Join and begin to follow. Raises LogUnavailable."""
        try:
            await self._join()
        except BaseException:
            self._fall_silent()
            raise
        self._follower = asyncio.get_running_loop().create_task(self._follow(), name=self._where)

    def _fall_silent(self) -> None:
        """No heartbeat comes any more, whatever becomes of a join that is on its way."""
        self.given_up = True
        self._group.miss(self)

    async def _join(self) -> None:
        self.id = await self._world.ask(
            self.host, self._where, lambda: self._group.join(self), where=f"{self._where} join"
        )
        self._changed.set()

    async def _follow(self) -> None:
        try:
            while not self._closing:
                await self._changed.wait()
                self._changed.clear()
                try:
                    await self._keep_up()
                except LogUnavailable as error:
                    self._failure = error
                    self._fetcher.wake()
                    self._changed.set()
                    await asyncio.sleep(0.2)
        except Exception as error:  # noqa: BLE001  # raised by `poll`, from now on
            self._broken = error
            self._fetcher.wake()

    async def _keep_up(self) -> None:
        """Bring what we hold into line with what the coordinator says; repeated until both agree."""
        while not self._closing:
            if self.host.cut:
                mended: asyncio.Future[None] = self._world.loop.create_future()
                self.host.mended.append(mended)
                await mended
            owned = self._group.owned(self.id)
            if owned is None:
                await self._lose()
                continue
            kept = self._group.kept(self.id)
            going = [tp for tp in self._held if tp not in kept]
            gained = sorted(tp for tp in kept if tp not in self._held)
            unseen = frozenset(tp for tp in owned if tp not in kept and tp not in self._held)
            if going or unseen:
                if going:
                    await self._give_up(going)
                await self._release(unseen.union(going))
            elif gained or not self._announced:
                self._gain(gained)
            else:
                return

    async def _give_up(self, partitions: Sequence[TopicPartition]) -> None:
        error = await self._call_revoked(partitions)
        if error is not None:
            self._fail(error)
        if isinstance(error, WaitTimeout):  # what it waited for may cover what we keep: lose all, and join anew
            member_id = self.id
            await self._world.ask(self.host, self._where, lambda: self._group.leave(member_id), where=self._where)

    async def _release(self, partitions: frozenset[TopicPartition]) -> None:
        member_id = self.id
        await self._world.ask(
            self.host, self._where, lambda: self._group.release(member_id, partitions), where=self._where
        )

    async def _lose(self) -> None:
        """We were expelled: tell the listener (its commits are fenced by now), then join again."""
        if self._held:
            error = await self._call_revoked(list(self._held))
            if error is not None:
                self._fail(error)
        await self._join()

    async def _call_revoked(self, partitions: Sequence[TopicPartition]) -> Exception | None:
        self._going.update(partitions)
        self._fetcher.paused.update(partitions)
        timeout_s = REVOKE_MS_MAX / 1_000
        caught: Exception | None = None
        try:
            async with asyncio.timeout(timeout_s) as limit:
                await self._listener.revoked(partitions)
        except Exception as error:  # noqa: BLE001  # the listener's errors are raised by `poll`
            caught = error
            if limit.expired():
                caught = WaitTimeout(f"`revoked` did not return within {timeout_s:.3f} s", where=self._where)
        finally:
            for tp in partitions:
                self._held.pop(tp, None)
                self._fetcher.positions.pop(tp, None)
                self._fetcher.paused.discard(tp)
            self._going.difference_update(partitions)
        return caught

    def _gain(self, gained: Sequence[TopicPartition]) -> None:
        for tp in gained:
            place = self._group.commits.get(tp)
            self._held[tp] = None
            self._fetcher.positions[tp] = 0 if place is None else place.offset
            self._fetcher.paused.add(tp)
        self._announced = True
        self._world.tell(self._where, self.id, "assigned", [tp.partition for tp in gained])
        try:
            self._listener.assigned(list(gained))
        except Exception as error:  # noqa: BLE001  # the listener's errors are raised by `poll`
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._fetcher.wake()

    def _check_held(self, partition: TopicPartition, action: str) -> None:
        if partition not in self._held:
            raise Fenced(f"{action} of {partition[0]}:{partition[1]}, which is not ours", where=self._where)

    def _raise_failure(self) -> None:
        if self._closed:
            raise LogUnavailable("the member is closed", where=self._where)
        if self._broken is not None:
            raise self._broken
        if self._failure is not None:
            error, self._failure = self._failure, None
            raise error
