"""Members of groups, where the file shows more than the contract can ask for."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesh.adapters.ports import Commit, TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.adapters.sqlite.groups import roster
from mesh.adapters.sqlite.groups.group import SqliteMember
from mesh.core.errors import Fenced, LogUnavailable, NotFound, WaitTimeout
from mesh.core.protocol.record import TopicPartition
from tests.adapters.log_kit import Recorder, append, numbered, partitions_of, resumed, take, until, values
from tests.adapters.loop_kit import stand_still

PLACE = TopicPartition("t", 0)
SESSION_TIMEOUT_MS = 900


@pytest.fixture(autouse=True)
async def topic(log: SqliteLog) -> None:
    await log.create_topics([TopicSpec("t", 2)])


async def join(log: SqliteLog, listener: Recorder) -> SqliteMember:
    return await log.join("g", ["t"], listener, session_timeout_ms=SESSION_TIMEOUT_MS)


async def expel(log: SqliteLog, member: SqliteMember) -> None:
    """As another process would that had not heard of it for a session."""
    group, gone = member._group, member.member_id
    await log.file.write(lambda connection: roster.leave(connection, group, gone), wakes=())


async def test_an_unknown_topic_cannot_be_joined(log: SqliteLog) -> None:
    with pytest.raises(NotFound, match="nosuch"):
        await log.join("g", ["t", "nosuch"], Recorder())


async def test_a_member_without_partitions_is_notified(log: SqliteLog) -> None:
    listeners = [Recorder() for _ in range(3)]
    for listener in listeners:
        await join(log, listener)
    await until(lambda: all(listener.told for listener in listeners), "all listeners are notified")
    assert ("assigned", ()) in [told for listener in listeners for told in listener.told]
    await until(lambda: sorted(len(one.held) for one in listeners) == [0, 1, 1], "shares")


async def test_members_that_join_in_one_commit_share_and_no_listener_loses_what_it_never_had(log: SqliteLog) -> None:
    listeners = [Recorder(), Recorder()]
    log.file.write(lambda _: time.sleep(0.05))  # meanwhile both wait, so that one transaction takes them
    await asyncio.gather(*(join(log, listener) for listener in listeners))
    await until(lambda: all(len(listener.held) == 1 for listener in listeners), "shares")
    assert all(what == "assigned" for listener in listeners for what, _ in listener.told)


async def test_only_what_moves_is_revoked(log: SqliteLog) -> None:
    first, second = Recorder(), Recorder()
    member = await join(log, first)
    await resumed(member, first, partitions_of("t", 2))
    await join(log, second)
    await until(lambda: len(second.held) == 1, "hand-over")
    assert first.told == [("assigned", tuple(sorted(partitions_of("t", 2)))), ("revoked", tuple(second.held))]
    (kept,) = first.held
    await append(log, numbered("t", [1], kept.partition))
    assert values(await take(member, 1)) == [b"1"]


async def test_a_partition_is_handed_over_only_after_its_revocation_ended(log: SqliteLog) -> None:
    may_end = asyncio.Event()

    async def revoking(_: Sequence[TopicPartition]) -> None:
        await may_end.wait()

    old, new = Recorder(revoking), Recorder()
    member = await log.join("g", ["t"], old, session_timeout_ms=60_000)
    await until(lambda: len(old.held) == 2, "assignment")
    other = await log.join("g", ["t"], new, session_timeout_ms=60_000)
    await until(lambda: len(old.told) == 2, "revocation")
    (going,) = old.told[1][1]
    member.resume(going)
    await append(log, numbered("t", [1], going.partition))
    assert await member.poll(records_max=1, wait_ms=50) == {}
    await member.commit({going: Commit(0, "still ours")})
    assert other.assignment == frozenset()
    may_end.set()
    await until(lambda: new.held == {going}, "hand-over")
    with pytest.raises(Fenced):
        await member.commit({going: Commit(1)})
    old.revoking = None


async def test_an_expelled_member_is_fenced_notified_and_joins_again(log: SqliteLog) -> None:
    fenced: list[Fenced] = []

    async def commit(partitions: Sequence[TopicPartition]) -> None:
        try:
            await member.commit({partitions[0]: Commit(9)})
        except Fenced as error:
            fenced.append(error)

    listener = Recorder(commit)
    member = await join(log, listener)
    await resumed(member, listener, partitions_of("t", 2))
    before = member.member_id
    await expel(log, member)
    with pytest.raises(Fenced):
        await member.commit({PLACE: Commit(1)})
    await until(lambda: len(listener.told) == 3, "assigned again")
    assert [what for what, _ in listener.told] == ["assigned", "revoked", "assigned"]
    assert len(fenced) == 1
    assert member.member_id != before
    assert await member.committed(PLACE) is None
    await member.commit({PLACE: Commit(1)})
    listener.revoking = None


async def test_the_heartbeat_finds_out_that_its_member_was_expelled(log: SqliteLog) -> None:
    listener = Recorder()
    member = await join(log, listener)
    await resumed(member, listener, partitions_of("t", 2))
    await expel(log, member)
    await until(lambda: [what for what, _ in listener.told] == ["assigned", "revoked", "assigned"], "joined again")


async def test_a_revocation_is_not_cut_off_for_the_time_in_which_its_own_process_stood_still(log: SqliteLog) -> None:
    async def slow(_: Sequence[TopicPartition]) -> None:
        for _turn in range(5):
            stand_still(0.08)
            await asyncio.sleep(0)

    old, new = Recorder(slow), Recorder()
    member = await join(log, old)
    await resumed(member, old, partitions_of("t", 2))
    await join(log, new)
    await until(lambda: len(new.held) == len(old.held) == 1, "a share for both")
    assert await member.poll(records_max=1, wait_ms=0) == {}


async def test_a_revocation_that_does_not_end_is_cut_off_and_all_is_handed_out_again(log: SqliteLog) -> None:
    cancelled = asyncio.Event()

    async def hang(_: Sequence[TopicPartition]) -> None:
        old.revoking = None
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    old, new = Recorder(hang), Recorder()
    member = await join(log, old)
    await until(lambda: len(old.held) == 2, "assignment")
    other = await join(log, new)
    await asyncio.wait_for(cancelled.wait(), 20)
    with pytest.raises(WaitTimeout, match="3000 ms"):
        await asyncio.wait_for(_poll_on(member), 20)
    await until(lambda: len(member.assignment) == len(other.assignment) == 1, "shares")
    assert not member.assignment & other.assignment


async def _poll_on(member: SqliteMember) -> None:
    while True:
        await member.poll(records_max=1, wait_ms=50)


async def test_closing_calls_revoked_once_and_raises_what_it_raised(log: SqliteLog) -> None:
    async def fail(_: Sequence[TopicPartition]) -> None:
        raise RuntimeError("cannot let go")

    listener = Recorder(fail)
    member = await join(log, listener)
    await until(lambda: len(listener.held) == 2, "assignment")
    with pytest.raises(RuntimeError, match="cannot let go"):
        await member.close()
    await member.close()
    assert [what for what, _ in listener.told] == ["assigned", "revoked"]
    with pytest.raises(LogUnavailable, match="closed"):
        await member.poll(records_max=1, wait_ms=0)
    assert log.file.read(lambda c: c.execute("SELECT count(*) FROM members").fetchone()) == (0,)


async def test_closing_the_log_closes_its_members(path: Path) -> None:
    log = SqliteLog(path)
    await log.start()
    listener = Recorder()
    await join(log, listener)
    await until(lambda: len(listener.held) == 2, "assignment")
    await log.close()
    assert listener.held == set()


async def test_closing_returns_although_the_file_is_locked(path: Path) -> None:
    log = SqliteLog(path)
    await log.start()
    listener = Recorder()
    member = await join(log, listener)
    await until(lambda: len(listener.held) == 2, "assignment")
    with sqlite3.connect(path, isolation_level=None) as lock:
        lock.execute("BEGIN IMMEDIATE")
        begun = time.monotonic()
        await member.close()
        assert time.monotonic() - begun < 10
        lock.execute("ROLLBACK")
    lock.close()
    await log.close()
    assert listener.held == set()


async def test_a_log_that_is_gone_comes_out_of_poll(log: SqliteLog, path: Path) -> None:
    listener = Recorder()
    member = await join(log, listener)
    await resumed(member, listener, partitions_of("t", 2))
    with sqlite3.connect(path, isolation_level=None) as lock:
        lock.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailable, match="heartbeat"):
            await asyncio.wait_for(_poll_on(member), 20)
        lock.execute("ROLLBACK")
    lock.close()
    await until(lambda: listener.held == partitions_of("t", 2) == member.assignment, "back again")


async def test_a_bug_in_the_follower_comes_out_of_every_poll(log: SqliteLog) -> None:
    listener = Recorder()
    member = await join(log, listener)
    await until(lambda: len(listener.held) == 2, "assignment")
    member._catalog = None  # type: ignore[assignment]
    await expel(log, member)
    for _ in range(2):
        with pytest.raises(AttributeError):
            await asyncio.wait_for(_poll_on(member), 20)
