"""A broker that is killed, hangs, or was never there: nothing of ours hangs, nothing acknowledged is lost."""

import asyncio
import contextlib
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import Appended, Commit, TopicSpec
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord, TopicPartition
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
from tests.live.conftest import OpenKafka, StartKafka
from tests.live.servers import KafkaServer, free_port

pytestmark = pytest.mark.live

DEADLINE_MS = 1_500
MARGIN_S = 6.0
"""Seconds that a busy machine may add to a deadline."""


@pytest.fixture(scope="module")
def server(start_kafka: StartKafka) -> KafkaServer:
    return start_kafka()


@pytest.fixture
async def log(server: KafkaServer, open_kafka: OpenKafka) -> KafkaLog:
    """Impatient."""
    return await open_kafka(server.bootstrap, append_timeout_ms=DEADLINE_MS, request_timeout_ms=DEADLINE_MS)


@pytest.fixture
async def patient(server: KafkaServer, open_kafka: OpenKafka) -> KafkaLog:
    return await open_kafka(server.bootstrap, append_timeout_ms=60_000, request_timeout_ms=5_000)


@contextlib.asynccontextmanager
async def hanging(server: KafkaServer) -> AsyncIterator[None]:
    """The broker takes connections and never answers."""
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


async def create(log: KafkaLog, partitions: int = 1) -> str:
    name = f"o{secrets.token_hex(6)}"
    await log.create_topics([TopicSpec(name, partitions)])
    return name


async def fails_in_time(what: Callable[[], Awaitable[object]], operation: str, server: KafkaServer) -> None:
    """Raises LogUnavailable within the deadline, naming operation, broker and milliseconds."""
    began = time.monotonic()
    with pytest.raises(LogUnavailable) as raised:
        await what()
    assert time.monotonic() - began < DEADLINE_MS / 1_000 + MARGIN_S
    said = str(raised.value)
    assert operation in said
    assert server.bootstrap in said
    assert f"{DEADLINE_MS} ms" in said


async def test_an_append_to_a_broker_that_hangs_fails_in_time_and_the_next_ones_work(
    server: KafkaServer, log: KafkaLog
) -> None:
    topic = await create(log, 2)
    await append(log, numbered(topic, [0]))
    async with hanging(server):
        both = asyncio.gather(log.append(numbered(topic, [1])), log.append(numbered(topic, [2], partition=1)))
        await fails_in_time(lambda: both, "append", server)
        await fails_in_time(lambda: log.append(numbered(topic, [3])), "append", server)
    async with asyncio.timeout(PATIENCE_S):
        verdicts: list[object] = []
        while not verdicts:
            try:
                verdicts += await log.append(numbered(topic, [4, 5]))
            except LogUnavailable:
                continue  # The broker has not woken up yet.
    assert all(isinstance(verdict, Appended) for verdict in verdicts)
    (end,) = {(await log.bounds(topic))[0].end}
    seen = [int(value or b"") for value in values(await read(log.reader({TopicPartition(topic, 0): 0}), end))]
    # What failed may be there or not; what was acknowledged is there, in order, after it.
    assert seen[0] == 0
    assert seen[-2:] == [4, 5]


async def test_an_append_that_hangs_in_the_library_does_not_hold_up_the_next_ones(
    server: KafkaServer, open_kafka: OpenKafka
) -> None:
    log = await open_kafka(server.bootstrap, append_timeout_ms=DEADLINE_MS, request_timeout_ms=20_000)
    known, unknown = [await create(log) for _ in range(2)]
    await append(log, numbered(known, [0]))
    async with hanging(server):
        # The producer has to ask for the leader of this one, and would wait for ever once it was ended.
        log._start_once()[1]._counts[unknown] = 1
        await fails_in_time(lambda: log.append(numbered(unknown, [0])), "append", server)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await append(log, numbered(known, [1]))
                break
            except LogUnavailable:
                continue  # The broker has not woken up yet.


async def test_every_question_to_a_broker_that_hangs_fails_in_time(server: KafkaServer, log: KafkaLog) -> None:
    topic = await create(log)
    place = TopicPartition(topic, 0)
    await append(log, numbered(topic, range(3)))
    listener = Recorder()
    member = await log.join(f"{topic}.group", [topic], listener, session_timeout_ms=30_000)
    await until(lambda: listener.held == {place}, "assignment")
    async with hanging(server):
        questions: dict[str, Callable[[], Awaitable[object]]] = {
            "commit": lambda: member.commit({place: Commit(1)}),
            "read the commits": lambda: member.committed(place),
            "describe topics": log.topics,
            "list offsets": lambda: log.bounds(topic),
            f"list offsets of {topic}": lambda: log.offsets_at(topic, 0),
            "describe topics ": lambda: log.committed("group", topic),
            " describe topics": lambda: log.create_topics([TopicSpec("new", 1)]),
            "  describe topics": lambda: log.join("group", [topic], Recorder()),
        }
        await asyncio.gather(*(fails_in_time(ask, name.strip(), server) for name, ask in questions.items()))
        stranger = KafkaLog(server.bootstrap, client_id="stranger", request_timeout_ms=DEADLINE_MS)
        await fails_in_time(stranger.start, "connect", server)
        await stranger.close()
    await member.close()


async def test_closing_does_not_wait_for_a_broker_that_hangs(server: KafkaServer, open_kafka: OpenKafka) -> None:
    log = await open_kafka(server.bootstrap, append_timeout_ms=60_000, request_timeout_ms=DEADLINE_MS)
    topic = await create(log)
    (place,) = partitions_of(topic, 1)
    await append(log, numbered(topic, [0]))
    listener = Recorder()
    member = await log.join(f"{topic}.group", [topic], listener, session_timeout_ms=30_000)
    await resumed(member, listener, [place])
    reader = log.reader({place: 0})
    await read(reader, 1)
    async with hanging(server):
        stuck = asyncio.ensure_future(log.append(numbered(topic, [1])))
        began = time.monotonic()
        await asyncio.sleep(0)
        await asyncio.gather(member.close(), reader.close(), log.close())
        assert time.monotonic() - began < 25
        with pytest.raises(LogUnavailable, match="closed"):
            await stuck
    assert listener.held == set()


async def test_an_unreachable_broker_is_reported_with_the_reason() -> None:
    log = KafkaLog(f"127.0.0.1:{free_port()}", client_id="test", request_timeout_ms=5_000)
    began = time.monotonic()
    with pytest.raises(LogUnavailable, match=r"Connect call failed|refused"):
        await log.start()
    assert time.monotonic() - began < 5 + MARGIN_S
    with pytest.raises(LogUnavailable):
        await log.append([NewRecord("t", b"k", b"v")])
    await log.close()


async def test_appends_outlive_a_broker_that_is_killed_and_started_again(
    server: KafkaServer, patient: KafkaLog
) -> None:
    topic = await create(patient, 2)
    await append(patient, numbered(topic, [0]))
    stop = asyncio.Event()
    acknowledged: list[int] = []

    async def producing() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await append(patient, numbered(topic, [number], partition=number % 2))
            acknowledged.append(number)

    task = asyncio.ensure_future(producing())
    await until(lambda: len(acknowledged) > 20, "appends before")
    server.signal(signal.SIGKILL)
    await asyncio.to_thread(server.start)
    before = len(acknowledged)
    await until(lambda: len(acknowledged) > before + 20 or task.done(), "appends after")
    stop.set()
    await task
    seen: list[int] = []
    for partition, bounds in (await patient.bounds(topic)).items():
        records = await read(patient.reader({TopicPartition(topic, partition): 0}), bounds.end)
        numbers = [int(value or b"") for value in values(records)]
        assert numbers == sorted(numbers)
        seen += numbers
    # Each once: the producer is idempotent across the restart.
    assert sorted(seen) == [0, *acknowledged]


async def test_what_was_given_up_is_not_appended_later(server: KafkaServer, log: KafkaLog, patient: KafkaLog) -> None:
    topic = await create(log)
    await append(log, numbered(topic, [0]))
    server.signal(signal.SIGKILL)
    with pytest.raises(LogUnavailable):
        await log.append(numbered(topic, range(1, 100)))
    await asyncio.to_thread(server.start)
    await append(patient, numbered(topic, [100]))
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await append(log, numbered(topic, [101]))
                break
            except LogUnavailable:
                continue  # It has not found the broker again yet.
    assert (await log.bounds(topic))[0].end == 3
    assert values(await read(log.reader({TopicPartition(topic, 0): 0}), 3)) == [b"0", b"100", b"101"]


async def test_members_and_readers_go_on_after_a_restart_by_themselves(server: KafkaServer, patient: KafkaLog) -> None:
    topic = await create(patient)
    (place,) = partitions_of(topic, 1)
    listener = Recorder()
    member = await patient.join(f"{topic}.group", [topic], listener, session_timeout_ms=10_000)
    await resumed(member, listener, [place])
    reader = patient.reader({place: 0})
    await append(patient, numbered(topic, range(5)))
    assert len(await take(member, 5)) == len(await read(reader, 5)) == 5
    await member.commit({place: Commit(3)})
    server.signal(signal.SIGKILL)
    await asyncio.to_thread(server.start)
    await append(patient, numbered(topic, range(5, 8)))
    assert values(await read(reader, 3)) == [b"5", b"6", b"7"]
    # Whether it kept its place in the group or had to join again: nothing is missed.
    found: set[bytes | None] = set()
    async with asyncio.timeout(2 * PATIENCE_S):
        while not found >= {b"5", b"6", b"7"}:
            polled = await member.poll(records_max=10, wait_ms=200)
            found |= {record.value for records in polled.values() for record in records}
            if place in member.assignment and member.position(place) is None:
                member.resume(place)
    stored = await patient.committed(f"{topic}.group", topic)
    assert stored[0].offset == 3
    await member.close()
    await reader.close()
