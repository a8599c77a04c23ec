"""Shared parts of the tests of logs: a listener that takes notes, ways to wait, and the fixtures."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Sequence

import pytest

from mesh.adapters.ports import Appended, Log, Member, Reader, Refused, TopicSpec
from mesh.core.protocol.record import NewRecord, Record, TopicPartition

OpenLog = Callable[[], Awaitable[Log]]
Make = Callable[[int], Awaitable[str]]

PATIENCE_S = 30.0
"""Longest wait of a test for an expected event; no test waits for time to pass."""

QUIET_MS = 300
"""Duration of a poll that must return no record."""


class Recorder:
    """A listener that notes what it is told. `revoking` is awaited within `revoked`."""

    def __init__(self, revoking: Callable[[Sequence[TopicPartition]], Awaitable[None]] | None = None) -> None:
        self.held: set[TopicPartition] = set()
        self.told: list[tuple[str, tuple[TopicPartition, ...]]] = []
        self.revoking = revoking

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.told.append(("assigned", tuple(partitions)))
        self.held.update(partitions)

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.told.append(("revoked", tuple(partitions)))
        if self.revoking is not None:
            await self.revoking(partitions)
        self.held.difference_update(partitions)


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"never happened: {what or condition}"
        await asyncio.sleep(0.005)


async def read(reader: Reader, count: int) -> list[Record]:
    """The next `count` records of a reader."""
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(records) < count:
            records += await reader.poll(records_max=count - len(records), wait_ms=1_000)
    return records


async def take(member: Member, count: int) -> list[Record]:
    """The next `count` records of a member."""
    records: list[Record] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(records) < count:
            found = await member.poll(records_max=count - len(records), wait_ms=1_000)
            records += [record for batch in found.values() for record in batch]
    return records


def values(records: Sequence[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def partitions_of(topic: str, count: int) -> set[TopicPartition]:
    return {TopicPartition(topic, partition) for partition in range(count)}


def numbered(topic: str, numbers: Sequence[int], partition: int | None = 0) -> list[NewRecord]:
    return [NewRecord(topic, None, b"%d" % number, (), partition) for number in numbers]


async def append(log: Log, records: Sequence[NewRecord]) -> list[Appended]:
    """Append what must not be refused."""
    verdicts = await log.append(records)
    assert [v for v in verdicts if isinstance(v, Refused)] == []
    return [v for v in verdicts if isinstance(v, Appended)]


async def resumed(member: Member, listener: Recorder, partitions: Collection[TopicPartition]) -> None:
    """Wait until exactly these are assigned, then let them come."""
    await until(lambda: listener.held == set(partitions) == member.assignment, f"assignment of {partitions}")
    member.resume(*partitions)


class LogFixtures:
    """`log_contract` says what a subclass for one log must define."""

    session_timeout_ms = 1_500

    async def abandon(self, member: Member) -> None:
        raise NotImplementedError

    @pytest.fixture
    async def log(self, open_log: OpenLog) -> Log:
        return await open_log()

    @pytest.fixture
    def topic_name(self) -> str:
        return f"t{secrets.token_hex(6)}"

    @pytest.fixture
    def make(self, log: Log, topic_name: str) -> Make:
        """Makes the test's topic with so many partitions and answers its name."""

        async def make(partitions: int) -> str:
            assert list(await log.create_topics([TopicSpec(topic_name, partitions)])) == [topic_name]
            return topic_name

        return make

    async def join(self, log: Log, topic: str, listener: Recorder, group: str = "readers") -> Member:
        return await log.join(f"{topic}.{group}", [topic], listener, session_timeout_ms=self.session_timeout_ms)
