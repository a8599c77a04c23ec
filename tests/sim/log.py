"""The log as one simulated process sees it: `ports.Log` over the brokers of this world."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from mesh.adapters.log_time import LogTime
from mesh.adapters.ports import (
    SESSION_TIMEOUT_MS,
    Appended,
    Bounds,
    Commit,
    Listener,
    Member,
    Reader,
    Refused,
    TopicSpec,
)
from mesh.core.errors import NotFound
from mesh.core.protocol.codec import plain_record
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from tests.sim.broker import Broker
from tests.sim.clock import SimClock
from tests.sim.fetch import Fetcher
from tests.sim.member import SimMember
from tests.sim.world import Host

WHERE = "sim"
Heard = Callable[[], None]


class SimLog:
    """A connection of `host` to the brokers. Appends to different partitions travel apart and arrive in any order.

    `plain`: the process is set to write records of the inbox and of tasks in plain form.
    """

    def __init__(self, broker: Broker, host: Host, *, plain: bool = False) -> None:
        self._plain = plain
        self._broker = broker
        self._world = broker.world
        self._host = host
        self._members: list[SimMember] = []
        self._time = LogTime(SimClock(self._world, host))

    @property
    def url(self) -> str:
        return "sim:brokers"

    @property
    def record_bytes_max(self) -> int:
        return self._broker.record_bytes_max

    async def start(self) -> None:
        """Do nothing: there is no connection."""

    async def close(self) -> None:
        for member in self._members:
            await member.close()

    async def create_topics(self, specs: Sequence[TopicSpec]) -> Sequence[str]:
        return await self._world.ask(self._host, "admin", lambda: self._broker.create(specs), where=WHERE)

    async def topics(self) -> Mapping[str, int]:
        return await self._world.ask(
            self._host, "admin", lambda: {name: len(found) for name, found in self._broker.topics.items()}, where=WHERE
        )

    def now_ms(self) -> int:
        return self._time.now_ms()

    @property
    def knows_time(self) -> bool:
        return self._time.known

    async def stamped_by_producers(self, names: Sequence[str]) -> Sequence[str]:
        return ()

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        self._world.check()
        if self._plain:
            records = [*map(plain_record, records)]
        verdicts: list[Appended | Refused | None] = [None] * len(records)
        batches: dict[TopicPartition, list[int]] = {}
        for n, record in enumerate(records):
            home = self._broker.home(record)
            refused = home if isinstance(home, Refused) else self._broker.refusal(record)
            if refused is not None:
                verdicts[n] = refused
            elif not isinstance(home, Refused):
                batches.setdefault(home, []).append(n)
        sent = []
        for place, numbers in batches.items():
            batch = [records[n] for n in numbers]
            sent.append((numbers, *self._send(place, batch)))
        for numbers, answer, heard in sent:
            for n, verdict in zip(numbers, await answer, strict=True):
                verdicts[n] = verdict
            heard()
        return [verdict for verdict in verdicts if verdict is not None]

    def _send(
        self, place: TopicPartition, batch: Sequence[NewRecord]
    ) -> "tuple[asyncio.Future[list[Appended]], Heard]":
        """The answer, and what is to be called when it has come: it told the brokers' time."""
        by, sent_ms, stamps = self._host.name, self._time.sent_ms(), list[int]()

        def store() -> list[Appended]:
            done = self._broker.store(place, batch, by)
            stamps.append(self._broker.partition(place).records[-1].timestamp)
            return done

        answer = self._world.ask(self._host, place, store, where=f"{WHERE} append {place[0]}")
        return answer, lambda: self._time.stamped(stamps[0], sent_ms)

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        return await self._world.ask(self._host, "admin", lambda: self._broker.bounds(topic), where=WHERE)

    async def offsets_at(self, topic: str, at_ms: int) -> Mapping[int, int]:
        return await self._world.ask(self._host, "admin", lambda: self._broker.offsets_at(topic, at_ms), where=WHERE)

    async def trim(self, partition: TopicPartition, before: int) -> None:
        await self._world.ask(self._host, "admin", lambda: self._broker.trim(partition, before), where=WHERE)

    async def committed(self, group: str, topic: str) -> Mapping[int, Commit]:
        def places() -> Mapping[int, Commit]:
            found = self._broker.group(group).commits
            return {tp.partition: place for tp, place in sorted(found.items()) if tp.topic == topic}

        return await self._world.ask(self._host, "admin", places, where=WHERE)

    async def idle_groups(self, groups: Sequence[str]) -> Sequence[str]:
        def idle() -> list[str]:
            return [name for name in groups if not self._broker.group(name).members]

        return await self._world.ask(self._host, "admin", idle, where=WHERE)

    async def commit_idle(self, group: str, commits: Mapping[TopicPartition, Commit]) -> None:
        await self._world.ask(
            self._host, "admin", lambda: self._broker.group(group).commit_idle(commits, self._host.name), where=WHERE
        )

    def reader(self, positions: Mapping[TopicPartition, int]) -> Reader:
        return SimReader(self._broker, self._host, positions)

    async def join(
        self, group: str, topics: Sequence[str], listener: Listener, *, session_timeout_ms: int = SESSION_TIMEOUT_MS
    ) -> Member:
        unknown = [topic for topic in topics if topic not in self._broker.topics]
        if unknown:
            raise NotFound(f"no topic {unknown[0]!r}", where=WHERE)
        member = SimMember(self._broker, self._host, group, topics, listener, session_timeout_ms)
        self._members.append(member)
        await member.open()
        return member


class SimReader:
    """See `ports.Reader`."""

    def __init__(self, broker: Broker, host: Host, positions: Mapping[TopicPartition, int]) -> None:
        self._fetcher = Fetcher(broker, host)
        self._fetcher.positions.update(positions)

    async def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        found = await self._fetcher.poll(records_max, wait_ms, _nothing)
        return [record for records in found.values() for record in records]

    def position(self, partition: TopicPartition) -> int:
        return self._fetcher.positions[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._fetcher.positions[partition] = offset
        self._fetcher.wake()

    async def close(self) -> None:
        """Do nothing: there is no resource."""


def _nothing() -> None:
    """Return no error: a reader has no task that could fail."""
