"""The contract of every Log for consumer groups: part of `LogContract`."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from mesh.adapters.ports import Commit, Log, Member
from mesh.core.errors import Fenced, InvalidInput
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.adapters.log_kit import (
    PATIENCE_S,
    QUIET_MS,
    LogFixtures,
    Make,
    OpenLog,
    Recorder,
    append,
    numbered,
    partitions_of,
    resumed,
    take,
    until,
    values,
)


class GroupContract(LogFixtures):
    # ------------------------------------------------------------------------------------------------- first steps

    async def test_a_new_group_begins_at_the_first_record(self, log: Log, make: Make) -> None:
        topic = await make(2)
        place = TopicPartition(topic, 0)
        verdicts = await append(log, numbered(topic, range(5)))
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await resumed(member, listener, partitions_of(topic, 2))
        assert values(await take(member, 5)) == [b"0", b"1", b"2", b"3", b"4"]
        assert member.position(place) == verdicts[-1].offset + 1
        await append(log, numbered(topic, [5]))
        assert values(await take(member, 1)) == [b"5"]
        await member.close()

    async def test_what_is_assigned_is_paused_until_it_is_resumed(self, log: Log, make: Make) -> None:
        topic = await make(2)
        await append(log, numbered(topic, range(3), 0) + numbered(topic, range(3), 1))
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await until(lambda: listener.held == partitions_of(topic, 2), "assignment")
        assert await member.poll(records_max=10, wait_ms=QUIET_MS) == {}
        member.resume(TopicPartition(topic, 1))
        found = await take(member, 3)
        assert {record.partition for record in found} == {1}
        assert await member.poll(records_max=10, wait_ms=QUIET_MS) == {}
        member.resume(TopicPartition(topic, 0))
        assert {record.partition for record in await take(member, 3)} == {0}
        await member.close()

    async def test_a_seek_before_the_resume_counts(self, log: Log, make: Make) -> None:
        topic = await make(1)
        place = TopicPartition(topic, 0)
        offsets = [v.offset for v in await append(log, numbered(topic, range(6)))]
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await until(lambda: listener.held == {place}, "assignment")
        member.seek(place, offsets[4])
        member.resume(place)
        assert values(await take(member, 2)) == [b"4", b"5"]
        member.seek(place, offsets[1])
        assert values(await take(member, 1)) == [b"1"]
        await member.close()

    async def test_a_paused_partition_is_not_delivered_and_goes_on_where_it_was(self, log: Log, make: Make) -> None:
        topic = await make(1)
        place = TopicPartition(topic, 0)
        await append(log, numbered(topic, range(10)))
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await resumed(member, listener, [place])
        assert values(await take(member, 3)) == [b"0", b"1", b"2"]
        member.pause(place)
        assert await member.poll(records_max=10, wait_ms=QUIET_MS) == {}
        member.resume(place)
        assert values(await take(member, 7)) == [b"%d" % number for number in range(3, 10)]
        await member.close()

    async def test_a_member_waits_as_long_as_requested(self, log: Log, make: Make) -> None:
        topic = await make(1)
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await resumed(member, listener, partitions_of(topic, 1))
        await member.poll(records_max=10, wait_ms=100)
        begun = time.monotonic()
        assert await member.poll(records_max=10, wait_ms=QUIET_MS) == {}
        assert QUIET_MS * 0.9 <= (time.monotonic() - begun) * 1_000 < QUIET_MS + 5_000
        await member.close()

    async def test_a_member_takes_no_more_than_asked(self, log: Log, make: Make) -> None:
        topic = await make(2)
        await append(log, numbered(topic, range(50), 0) + numbered(topic, range(50), 1))
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await resumed(member, listener, partitions_of(topic, 2))
        seen: dict[int, list[bytes | None]] = {0: [], 1: []}
        async with asyncio.timeout(PATIENCE_S):
            while sum(map(len, seen.values())) < 100:
                found = await member.poll(records_max=9, wait_ms=1_000)
                assert sum(map(len, found.values())) <= 9
                for partition, records in found.items():
                    seen[partition.partition] += values(records)
        assert seen[0] == seen[1] == [b"%d" % number for number in range(50)]
        await member.close()

    # ----------------------------------------------------------------------------------------------------- commits

    async def test_a_place_is_kept_with_its_metadata_and_read_from_within_and_without(
        self, log: Log, make: Make, open_log: OpenLog
    ) -> None:
        topic = await make(2)
        first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
        await append(log, numbered(topic, range(5), 0) + numbered(topic, range(5), 1))
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await until(lambda: listener.held == {first, second}, "assignment")
        assert await member.committed(first) is None
        assert await log.committed(f"{topic}.readers", topic) == {}
        metadata = '{"checkpoint": "mésh.checkpoints/3/17"}'
        await member.commit({second: Commit(3, metadata)})
        assert await member.committed(second) == Commit(3, metadata)
        assert await member.committed(first) is None
        outside = await open_log()
        assert await outside.committed(f"{topic}.readers", topic) == {1: Commit(3, metadata)}
        assert await outside.committed(f"{topic}.others", topic) == {}
        await member.commit({first: Commit(2), second: Commit(4, "é" * 2_048)})
        assert await outside.committed(f"{topic}.readers", topic) == {0: Commit(2), 1: Commit(4, "é" * 2_048)}
        await member.close()

    async def test_the_next_member_goes_on_from_the_committed_place(self, log: Log, make: Make) -> None:
        topic = await make(1)
        place = TopicPartition(topic, 0)
        offsets = [v.offset for v in await append(log, numbered(topic, range(10)))]
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await resumed(member, listener, [place])
        await take(member, 10)
        await member.commit({place: Commit(offsets[6])})
        await member.close()
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await resumed(member, listener, [place])
        assert values(await take(member, 4)) == [b"6", b"7", b"8", b"9"]
        await member.close()

    async def test_groups_do_not_know_of_each_other(self, log: Log, make: Make) -> None:
        topic = await make(1)
        place = TopicPartition(topic, 0)
        offsets = [v.offset for v in await append(log, numbered(topic, range(3)))]
        listeners = [Recorder(), Recorder()]
        members = [await self.join(log, topic, listener, f"group{number}") for number, listener in enumerate(listeners)]
        for member, listener in zip(members, listeners, strict=True):
            await resumed(member, listener, [place])
            assert values(await take(member, 3)) == [b"0", b"1", b"2"]
        await members[0].commit({place: Commit(offsets[2])})
        assert await members[1].committed(place) is None
        for member in members:
            await member.close()

    async def test_metadata_over_the_limit_is_invalid(self, log: Log, make: Make) -> None:
        topic = await make(1)
        place = TopicPartition(topic, 0)
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await until(lambda: listener.held == {place}, "assignment")
        with pytest.raises(InvalidInput, match="4096"):
            await member.commit({place: Commit(0, "é" * 2_049)})
        assert await member.committed(place) is None
        await member.close()

    # --------------------------------------------------------------------------------------------------- hand-over

    async def test_members_share_the_partitions_each_with_one_owner(
        self, log: Log, make: Make, open_log: OpenLog
    ) -> None:
        topic = await make(6)
        everything = partitions_of(topic, 6)
        listeners = [Recorder(), Recorder(), Recorder()]
        members: list[Member] = []
        for listener in listeners:
            members.append(await self.join(await open_log(), topic, listener))
            joined = listeners[: len(members)]
            share = 6 // len(members)
            await until(
                lambda joined=joined, share=share: (
                    all(len(one.held) == share for one in joined)  # type: ignore[misc]
                    and set().union(*(one.held for one in joined)) == everything
                ),
                f"shares of {share}",
            )
        for listener in listeners:
            assert _never_told_twice(listener)
        await append(log, [NewRecord(topic, None, b"%d" % n, (), n % 6) for n in range(60)])
        for member, listener in zip(members, listeners, strict=True):
            member.resume(*listener.held)
            found = await take(member, 20)
            assert {TopicPartition(r.topic, r.partition) for r in found} == listener.held
        for member in members:
            await member.close()

    async def test_a_member_that_closes_is_notified_and_its_partitions_go_to_the_others(
        self, log: Log, make: Make, open_log: OpenLog
    ) -> None:
        topic = await make(2)
        staying, leaving = Recorder(), Recorder()
        member = await self.join(log, topic, staying)
        other = await self.join(await open_log(), topic, leaving)
        await until(lambda: len(staying.held) == len(leaving.held) == 1, "one each")
        await other.close()
        await other.close()
        assert leaving.held == set()
        assert other.assignment == frozenset()
        await until(lambda: staying.held == partitions_of(topic, 2), "all of them")
        await member.close()
        assert staying.held == set()

    async def test_what_a_killed_member_held_goes_to_the_others(self, log: Log, make: Make, open_log: OpenLog) -> None:
        topic = await make(2)
        await append(log, numbered(topic, range(4), 0) + numbered(topic, range(4), 1))
        listener, doomed = Recorder(), Recorder()
        other = await self.join(await open_log(), topic, doomed)
        await resumed(other, doomed, partitions_of(topic, 2))
        found = await take(other, 8)
        done = next(record for record in found if record.partition == 0 and record.value == b"2")
        await other.commit({TopicPartition(topic, 0): Commit(done.offset)})
        await self.abandon(other)
        member = await self.join(log, topic, listener)
        await resumed(member, listener, partitions_of(topic, 2))
        found = await take(member, 6)
        assert values([r for r in found if r.partition == 0]) == [b"2", b"3"]
        assert values([r for r in found if r.partition == 1]) == [b"0", b"1", b"2", b"3"]
        await member.close()

    async def test_a_revoked_partition_may_still_be_committed(self, log: Log, make: Make, open_log: OpenLog) -> None:
        topic = await make(2)
        await append(log, numbered(topic, range(10), 0) + numbered(topic, range(10), 1))
        committed: dict[TopicPartition, int] = {}

        async def commit(partitions: Sequence[TopicPartition]) -> None:
            for place in partitions:
                offset = member.position(place)
                assert offset is not None
                await member.commit({place: Commit(offset, "last words")})
                committed[place] = offset

        old, new = Recorder(commit), Recorder()
        member = await self.join(log, topic, old)
        await resumed(member, old, partitions_of(topic, 2))
        await take(member, 13)
        other = await self.join(await open_log(), topic, new)
        await until(lambda: len(new.held) == 1, "hand-over")
        (place,) = new.held
        assert await other.committed(place) == Commit(committed[place], "last words")
        other.resume(place)
        rest = 10 - await _index(log, place, committed[place])
        assert values(await take(other, rest)) == [b"%d" % number for number in range(10 - rest, 10)]
        await other.close()
        old.revoking = None
        await member.close()

    async def test_a_commit_for_another_members_partition_is_fenced_and_stores_nothing(
        self, log: Log, make: Make, open_log: OpenLog
    ) -> None:
        topic = await make(2)
        await append(log, numbered(topic, range(5), 0) + numbered(topic, range(5), 1))
        old, new = Recorder(), Recorder()
        member = await self.join(log, topic, old)
        await until(lambda: old.held == partitions_of(topic, 2), "assignment")
        other = await self.join(await open_log(), topic, new)
        await until(lambda: len(old.held) == len(new.held) == 1, "hand-over")
        (lost,) = new.held
        (kept,) = old.held
        with pytest.raises(Fenced):
            await member.commit({lost: Commit(3), kept: Commit(3)})
        assert await log.committed(f"{topic}.readers", topic) == {}
        await until(lambda: len(old.held) == len(new.held) == 1, "still one each")
        for one, listener in ((member, old), (other, new)):
            (place,) = listener.held
            await one.commit({place: Commit(4)})
        assert await log.committed(f"{topic}.readers", topic) == {0: Commit(4), 1: Commit(4)}
        await other.close()
        await member.close()

    async def test_nothing_can_be_done_with_what_is_not_ours(self, log: Log, make: Make) -> None:
        topic = await make(1)
        listener = Recorder()
        member = await self.join(log, topic, listener)
        await until(lambda: listener.held == partitions_of(topic, 1), "assignment")
        foreign = TopicPartition(topic, 7)
        with pytest.raises(Fenced):
            member.seek(foreign, 0)
        with pytest.raises(Fenced):
            member.pause(foreign)
        with pytest.raises(Fenced):
            member.resume(foreign)
        with pytest.raises(Fenced):
            await member.commit({foreign: Commit(1)})
        assert member.position(foreign) is None
        await member.close()
        with pytest.raises(Fenced):
            await member.commit({TopicPartition(topic, 0): Commit(1)})

    # -------------------------------------------------------------------------------------------------- listeners

    async def test_what_a_listener_raises_when_it_is_assigned_comes_out_of_poll(self, log: Log, make: Make) -> None:
        class Refusing(Recorder):
            def assigned(self, partitions: Sequence[TopicPartition]) -> None:
                super().assigned(partitions)
                if partitions:
                    raise RuntimeError("cannot restore")

        member = await self.join(log, await make(1), Refusing())
        await self.raises(member, "cannot restore")
        await member.close()

    async def test_what_a_listener_raises_when_it_is_revoked_comes_out_of_poll(
        self, log: Log, make: Make, open_log: OpenLog
    ) -> None:
        topic = await make(2)

        async def fail(_: Sequence[TopicPartition]) -> None:
            raise RuntimeError("cannot let go")

        listener, other_listener = Recorder(fail), Recorder()
        member = await self.join(log, topic, listener)
        await until(lambda: member.assignment == partitions_of(topic, 2), "assignment")
        other = await self.join(await open_log(), topic, other_listener)
        await self.raises(member, "cannot let go")
        await until(lambda: len(other_listener.held) == 1, "hand-over all the same")
        listener.revoking = None
        await other.close()
        await member.close()

    async def raises(self, member: Member, words: str) -> None:
        """Poll until a listener's error comes out."""

        async def poll() -> None:
            while True:
                await member.poll(records_max=10, wait_ms=100)

        with pytest.raises(RuntimeError, match=words):
            await asyncio.wait_for(poll(), PATIENCE_S)


def _never_told_twice(listener: Recorder) -> bool:
    """Whether each partition was assigned only while it was not held, and revoked only while it was."""
    held: set[TopicPartition] = set()
    for what, partitions in listener.told:
        if held.isdisjoint(partitions) if what == "assigned" else held.issuperset(partitions):
            held.symmetric_difference_update(partitions)
        else:
            return False
    return True


async def _index(log: Log, place: TopicPartition, offset: int) -> int:
    """Count the records of the partition before `offset`."""
    reader = log.reader({place: 0})
    count = 0
    async with asyncio.timeout(PATIENCE_S):
        while reader.position(place) < offset:
            count += len(await reader.poll(records_max=1, wait_ms=1_000))
    await reader.close()
    return count
