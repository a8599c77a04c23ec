"""Membership on a real Kafka: each trap of aiokafka that would lose, repeat or block records."""

import asyncio
import secrets
import threading
import time
from collections.abc import Sequence

import pytest
from aiokafka import ConsumerRecord
from confluent_kafka import Consumer

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import REVOKE_MS_MAX, Commit, Member, TopicSpec
from mesh.core.errors import ConfigInvalid, Fenced, LogUnavailable, MeshError, NotFound
from mesh.core.protocol.record import TopicPartition
from tests.adapters.log_kit import (
    PATIENCE_S,
    Recorder,
    append,
    numbered,
    partitions_of,
    read,
    resumed,
    take,
    until,
    values,
)
from tests.live.conftest import OpenKafka

pytestmark = pytest.mark.live
SESSION_TIMEOUT_MS = 1_500


async def create(log: KafkaLog, partitions: int = 1) -> str:
    name = f"m{secrets.token_hex(6)}"
    await log.create_topics([TopicSpec(name, partitions)])
    return name


async def join(log: KafkaLog, topic: str, listener: Recorder, session_timeout_ms: int = SESSION_TIMEOUT_MS) -> Member:
    return await log.join(f"{topic}.group", [topic], listener, session_timeout_ms=session_timeout_ms)


class Polling:
    """Polls a member in the background, as a process does; keeps what it delivers and what it raises."""

    def __init__(self, member: Member) -> None:
        self.found: list[tuple[int, bytes | None]] = []
        self._member = member
        self._task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            found = await self._member.poll(records_max=100, wait_ms=100)
            self.found += [(r.offset, r.value) for records in found.values() for r in records]

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            raise self._task.exception() or AssertionError("polling ended")


async def poll_for_ever(member: Member) -> None:
    """Ends by an error only."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await member.poll(records_max=1, wait_ms=100)


async def test_a_restore_that_takes_longer_than_the_session_costs_nothing(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    (place,) = partitions_of(topic, 1)
    await append(kafka_log, numbered(topic, range(5)))
    listener = Recorder()
    member = await join(kafka_log, topic, listener)
    polling = Polling(member)
    await until(lambda: listener.held == {place}, "assignment")
    end = time.monotonic() + 2 * SESSION_TIMEOUT_MS / 1_000
    await until(lambda: time.monotonic() > end, "the restore goes on")
    assert polling.found == []
    member.seek(place, 2)
    member.resume(place)
    await until(lambda: len(polling.found) == 3, "records after the restore")
    assert [value for _, value in polling.found] == [b"2", b"3", b"4"]
    assert [what for what, _ in listener.told] == ["assigned"]
    await polling.end()
    await member.close()


async def test_records_are_handed_out_as_the_library_makes_them(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    await append(kafka_log, numbered(topic, [1]))
    listener = Recorder()
    member = await join(kafka_log, topic, listener)
    await resumed(member, listener, partitions_of(topic, 1))
    (record,) = await take(member, 1)
    assert isinstance(record, ConsumerRecord)
    (record,) = await read(kafka_log.reader({TopicPartition(topic, 0): 0}), 1)
    assert isinstance(record, ConsumerRecord)


async def test_a_listener_that_releases_too_slowly_is_cut_short(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    forever = asyncio.Event()

    async def hang(_: Sequence[TopicPartition]) -> None:
        await forever.wait()

    listener, other_listener = Recorder(hang), Recorder()
    member = await join(kafka_log, topic, listener)
    await until(lambda: len(listener.held) == 1, "assignment")
    other = await join(kafka_log, topic, other_listener)
    with pytest.raises(MeshError, match=f"at most {REVOKE_MS_MAX} ms"):
        await poll_for_ever(member)
    await until(lambda: len(member.assignment) + len(other.assignment) == 1, "the group goes on")
    listener.revoking = None
    await other.close()
    await member.close()


async def test_a_close_whose_caller_is_cancelled_leaves_the_group_all_the_same(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    letting_go, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(_: Sequence[TopicPartition]) -> None:
        letting_go.set()
        await goes_on.wait()

    listener, other_listener = Recorder(slow), Recorder()
    member = await join(kafka_log, topic, listener)
    await until(lambda: len(listener.held) == 1, "assignment")
    closing = asyncio.ensure_future(member.close())
    await letting_go.wait()
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    goes_on.set()
    other = await join(kafka_log, topic, other_listener)
    await until(lambda: len(other.assignment) == 1, "the other one has what was left")
    await member.close()
    assert listener.held == set()
    await other.close()


async def test_a_commit_that_comes_after_the_revocation_is_fenced_and_costs_no_rebalance(
    kafka_log: KafkaLog, open_kafka: OpenKafka, kafka_bootstrap: str
) -> None:
    topic = await create(kafka_log, 2)
    old, new = Recorder(), Recorder()
    # Long sessions: on a busy machine a member that misses its heartbeats is removed, which is another rebalance.
    member = await join(kafka_log, topic, old, session_timeout_ms=30_000)
    await until(lambda: len(old.held) == 2, "assignment")
    late: list[Fenced] = []
    stored: list[float] = []

    async def commit_until_it_is_ours_again() -> None:
        # What a task does that did not hear of the revocation: it commits all the time.
        while len(new.held) != 1 or len(old.held) != 1:
            try:
                await member.commit(dict.fromkeys(partitions_of(topic, 2), Commit(1)))
                stored.append(time.monotonic())
            except Fenced as error:
                late.append(error)
            await asyncio.sleep(0)

    committing = asyncio.ensure_future(commit_until_it_is_ours_again())
    await until(lambda: stored, "first commits")
    other = await join(await open_kafka(kafka_bootstrap), topic, new, session_timeout_ms=30_000)
    await asyncio.wait_for(committing, PATIENCE_S)
    assert late
    assert "not the owner of" in str(late[0])
    # One hand-over, no more: what came late did not throw anybody out.
    assert [what for what, _ in old.told] == ["assigned", "revoked", "assigned"]
    assert [what for what, _ in new.told if what == "revoked"] == []
    await other.close()
    await member.close()


async def test_no_commit_is_sent_between_the_revocation_and_the_next_assignment(
    kafka_log: KafkaLog, open_kafka: OpenKafka, kafka_bootstrap: str
) -> None:
    topic = await create(kafka_log, 2)
    let_go = asyncio.Event()

    async def slowly(_: Sequence[TopicPartition]) -> None:
        await let_go.wait()

    slow, quick = Recorder(), Recorder()
    member = await join(kafka_log, topic, slow, session_timeout_ms=30_000)
    other = await join(await open_kafka(kafka_bootstrap), topic, quick, session_timeout_ms=30_000)
    await until(lambda: len(slow.held) == len(quick.held) == 1, "one each")
    (place,) = quick.held
    slow.revoking = slowly
    third = await join(await open_kafka(kafka_bootstrap), topic, Recorder(), session_timeout_ms=30_000)
    await until(lambda: not quick.held, "the quick one has let go, the slow one has not")
    # The broker would still take it: it waits for the slow one, the old generation stands.
    with pytest.raises(Fenced, match="they were revoked"):
        await other.commit({place: Commit(1)})
    let_go.set()
    slow.revoking = None
    await until(lambda: len(slow.held) + len(quick.held) > 0, "the next generation")
    for one in (third, other, member):
        await one.close()
    assert await kafka_log.committed(f"{topic}.group", topic) == {}


async def test_a_zombie_does_not_move_the_place_of_a_group_that_has_emptied(
    kafka_log: KafkaLog, kafka_bootstrap: str
) -> None:
    # Once the broker has forgotten the member and the group is empty, a commit that carries no generation is taken
    # from anybody: aiokafka's own commit carries none after an eviction.
    topic = await create(kafka_log)
    (place,) = partitions_of(topic, 1)
    await append(kafka_log, numbered(topic, range(10)))
    zombie_says: list[str] = []

    async def last_words(_: Sequence[TopicPartition]) -> None:
        try:
            await member.commit({place: Commit(3, "zombie")})
            zombie_says.append("stored")
        except Fenced:
            zombie_says.append("fenced")

    listener = Recorder(last_words)
    member = await join(kafka_log, topic, listener)
    await until(lambda: listener.held == {place}, "assignment")

    def successor() -> None:
        async def work() -> None:
            log = KafkaLog(kafka_bootstrap, client_id="successor")
            await log.start()
            mine = Recorder()
            other = await join(log, topic, mine)
            await until(lambda: mine.held == {place}, "eviction of the one that hangs")
            await other.commit({place: Commit(9, "successor")})
            await log.close()

        asyncio.run(work())

    # The loop of this test hangs, longer than the session; another process (here: thread) takes over and leaves.
    thread = threading.Thread(target=successor)
    thread.start()
    thread.join()
    with pytest.raises(Fenced):
        await member.commit({place: Commit(3, "zombie")})
    await until(lambda: zombie_says, "the zombie hears of it")
    assert zombie_says == ["fenced"]
    await until(lambda: listener.held == {place}, "the zombie is a member again")
    assert await kafka_log.committed(f"{topic}.group", topic) == {0: Commit(9, "successor")}
    listener.revoking = None
    await member.close()


async def test_members_of_different_groups_in_one_process_do_not_mix_up_what_they_had(kafka_log: KafkaLog) -> None:
    # aiokafka's sticky assignor keeps "what I had" in its class: with one class for all, a member claims partitions of
    # another group's topic when it joins again.
    topics = [await create(kafka_log, 4) for _ in range(2)]
    listeners = [[Recorder() for _ in range(2)] for _ in topics]
    members: list[Member] = []
    for round_ in range(2):
        for topic, group in zip(topics, listeners, strict=True):
            members.append(await join(kafka_log, topic, group[round_]))
        for topic, group in zip(topics, listeners, strict=True):
            joined = group[: round_ + 1]
            await until(
                lambda joined=joined: all(len(one.held) == 4 // len(joined) for one in joined),  # type: ignore[misc]
                "shares",
            )
            assert set().union(*(one.held for one in joined)) == partitions_of(topic, 4)
    kept = [len(group[0].held & set(group[0].told[0][1])) for group in listeners]
    assert kept == [2, 2]
    assigned = {m._consumer._coordinator._assignors[0] for m in members}  # type: ignore[attr-defined]
    assert len(assigned) == 4
    for member in members:
        await member.close()


async def test_leaving_while_the_group_waits_for_others_does_not_hang(
    kafka_log: KafkaLog, open_kafka: OpenKafka, kafka_bootstrap: str
) -> None:
    topic = await create(kafka_log)
    let_go = asyncio.Event()

    async def slowly(_: Sequence[TopicPartition]) -> None:
        await let_go.wait()

    slow, waiting = Recorder(slowly), Recorder()
    member = await join(kafka_log, topic, slow, session_timeout_ms=30_000)
    await until(lambda: len(slow.held) == 1, "assignment")
    other = await join(await open_kafka(kafka_bootstrap), topic, waiting)
    await until(lambda: [what for what, _ in slow.told][-1] == "revoked", "the rebalance has begun")
    began = time.monotonic()
    await other.close()
    assert time.monotonic() - began < 15  # of 30, the others' patience
    let_go.set()
    await until(lambda: member.assignment and len(slow.held) == 1, "the other one goes on")
    slow.revoking = None
    await member.close()


async def test_a_coordinator_that_refuses_comes_out_of_poll(kafka_log: KafkaLog, kafka_bootstrap: str) -> None:
    topic = await create(kafka_log)
    settings = {"bootstrap.servers": kafka_bootstrap, "group.id": f"{topic}.group", "client.id": "older-member"}
    foreign = Consumer({**settings, "partition.assignment.strategy": "range"})
    assigned = threading.Event()
    foreign.subscribe([topic], on_assign=lambda *_: assigned.set())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not assigned.is_set():
                await asyncio.to_thread(foreign.poll, 0.1)
        member = await join(kafka_log, topic, Recorder())
        for _ in range(2):  # It never recovers by itself, and says so.
            with pytest.raises(LogUnavailable, match=r"InconsistentGroupProtocol.* join again"):
                await poll_for_ever(member)
        await member.close()
    finally:
        await asyncio.to_thread(foreign.close)


async def test_a_coordination_that_crashed_comes_out_of_poll(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    listener = Recorder()
    member = await join(kafka_log, topic, listener)
    await until(lambda: len(listener.held) == 1, "assignment")

    async def crash() -> None:
        raise ZeroDivisionError("a mistake in the library")

    coordinator = member._consumer._coordinator  # type: ignore[attr-defined]
    coordinator.ensure_coordinator_known = crash
    coordinator.request_rejoin()
    with pytest.raises(LogUnavailable, match="a mistake in the library"):
        await poll_for_ever(member)
    del coordinator.ensure_coordinator_known
    await member.close()


async def test_polling_without_waiting_lets_the_loop_work(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    await append(kafka_log, numbered(topic, range(10)))
    listener = Recorder()
    member = await join(kafka_log, topic, listener)
    reader = kafka_log.reader({TopicPartition(topic, 0): 0})
    found: list[bytes | None] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < 10:
            found += values(await reader.poll(records_max=3, wait_ms=0))
        while not listener.held:
            await member.poll(records_max=1, wait_ms=0)
        member.resume(*listener.held)
        taken = 0
        while taken < 10:
            taken += sum(map(len, (await member.poll(records_max=3, wait_ms=0)).values()))
    assert found == [b"%d" % n for n in range(10)]
    await reader.close()
    await member.close()


async def test_polling_what_was_closed_is_reported(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    member = await join(kafka_log, topic, Recorder())
    reader = kafka_log.reader({TopicPartition(topic, 0): 0})
    await reader.poll(records_max=1, wait_ms=0)
    for one in (member, reader):
        await one.close()
        await one.close()
        with pytest.raises(LogUnavailable, match="closed"):
            await one.poll(records_max=1, wait_ms=0)


async def test_a_group_cannot_consume_a_missing_topic(kafka_log: KafkaLog) -> None:
    topic = await create(kafka_log)
    with pytest.raises(NotFound, match="nosuch, nowhere"):
        await kafka_log.join("g", ["nosuch", topic, "nowhere"], Recorder())
    with pytest.raises(NotFound, match="nosuch"):
        await kafka_log.committed("g", "nosuch")


async def test_another_application_in_our_group_is_named_at_the_start(
    kafka_log: KafkaLog, kafka_bootstrap: str
) -> None:
    topic = await create(kafka_log)
    settings = {"bootstrap.servers": kafka_bootstrap, "group.id": f"{topic}.group", "client.id": "reports"}
    foreign = Consumer(settings)
    assigned = threading.Event()
    foreign.subscribe([topic], on_assign=lambda *_: assigned.set())
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not assigned.is_set():
                await asyncio.to_thread(foreign.poll, 0.1)
        with pytest.raises(ConfigInvalid, match=r"no part of this mesh.*reports at "):
            await join(kafka_log, topic, Recorder())
    finally:
        await asyncio.to_thread(foreign.close)
    await join(kafka_log, topic, Recorder())  # it has gone
    await join(kafka_log, topic, Recorder())  # and we are no strangers to one another
