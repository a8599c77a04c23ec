"""The member of a Faust app's group, with records and rebalances as Faust gives them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.adapters.faust.tasks import FaustGroup, FaustMember
from mesh.adapters.ports import Bounds, Commit
from mesh.core.errors import Fenced
from mesh.core.protocol.record import TopicPartition

TOPIC = "mesh.tasks.count"
PLACE = TopicPartition(TOPIC, 0)


class Signal:
    """A signal of Faust."""

    def connect(self, handler: Any, *, weak: bool) -> None:
        self.send = handler


class App:
    """The parts of a Faust app that a member uses, for one agent."""

    def __init__(self) -> None:
        self.on_partitions_assigned, self.on_partitions_revoked = Signal(), Signal()
        self.consumer_generation_id = 1
        self.flushed = 0
        self.sought: list[tuple[Any, int]] = []
        coordinator = SimpleNamespace(generation=1, member_id="m")
        self.consumer = SimpleNamespace(
            _thread=SimpleNamespace(_consumer=SimpleNamespace(_coordinator=coordinator), call_thread=self._call),
            seek=self._seek,
        )
        self.producer = SimpleNamespace(flush=self._flush)

    def topic(self, name: str, **options: Any) -> str:
        assert options["acks"] is False, "Faust's own commits must not touch tasks"
        return name

    def agent(self, source: str, name: str) -> Any:
        def keep(function: Any) -> None:
            self.read = function

        return keep

    async def _call(self, function: Any, *arguments: Any) -> None:
        await function(*arguments)

    async def _flush(self) -> None:
        self.flushed += 1

    async def _seek(self, place: Any, offset: int) -> None:
        self.sought.append((tuple(place), offset))

    async def give(self, *offsets: int, generation: int = 1) -> None:
        """Deliver records."""

        async def events() -> AsyncIterator[Any]:
            for offset in offsets:
                message = SimpleNamespace(topic=TOPIC, partition=0, offset=offset, timestamp=1.5, key=b"k", value=b"v")
                message.headers, message.generation_id = [("a", b"1")], generation
                yield SimpleNamespace(message=message)

        await self.read(SimpleNamespace(events=events))


class Log:
    """A log in which the tasks end at an offset."""

    end = 0

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        return {0: Bounds(0, self.end)}

    async def committed(self, group: str, topic: str) -> Mapping[int, Commit]:
        return {0: Commit(4, "marks")}


class Listener:
    def __init__(self) -> None:
        self.now: list[TopicPartition] = []

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.now = [*partitions]

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self.now = []


class World:
    """A member that owns one partition and has committed that it begins at offset 4."""

    def __init__(self) -> None:
        self.app, self.log, self.listener = App(), Log(), Listener()
        self.stored: list[tuple[Any, ...]] = []

    async def _store(self, *arguments: Any) -> None:
        self.stored.append(arguments[1:])

    async def member(self) -> FaustMember:
        group = FaustGroup(self.app, self._store)
        group.read(TOPIC)
        group.log = self.log  # type: ignore[assignment]
        await self.app.on_partitions_assigned.send(self.app, {tuple(PLACE), ("other", 3)})
        member = await group.join("words", [TOPIC], self.listener)
        assert self.listener.now == [PLACE]
        await member.commit({PLACE: Commit(4, "at work")})
        member.resume(PLACE)
        return member


async def offsets(member: FaustMember) -> list[int]:
    batches = await member.poll(records_max=500, wait_ms=1)
    return [record.offset for records in batches.values() for record in records]


async def test_records_come_in_order_once_and_only_when_resumed() -> None:
    world = World()
    member = await world.member()
    member.pause(PLACE)
    await world.app.give(4, 5)
    assert await offsets(member) == []
    member.resume(PLACE)
    await world.app.give(5, 6)
    assert await offsets(member) == [4, 5, 6]
    assert member.position(PLACE) == 7
    assert await member.committed(PLACE) == Commit(4, "marks")


async def test_faust_goes_back_to_a_record_that_it_left_out() -> None:
    world = World()
    member = await world.member()
    await world.app.give(4, 6, 7)
    assert world.app.sought == [(tuple(PLACE), 5)]
    await world.app.give(8, 5, 6, 7, 8)
    assert await offsets(member) == [4, 5, 6, 7, 8], "7 and 8 were on their way"


async def test_a_gap_that_stays_after_faust_went_back_is_none_of_records() -> None:
    world = World()
    member = await world.member()
    await world.app.give(4, 9, 10)
    await world.app.give(9, 10)
    assert await offsets(member) == [4, 9, 10]


async def test_the_first_record_of_an_assignment_is_that_of_the_commit() -> None:
    world = World()
    group = FaustGroup(world.app, world._store)
    group.read(TOPIC)
    group.log = world.log  # type: ignore[assignment]
    await world.app.on_partitions_assigned.send(world.app, {tuple(PLACE)})
    member = await group.join("words", [TOPIC], world.listener)
    await world.app.give(6)
    await member.commit({PLACE: Commit(4)})
    assert world.app.sought == [(tuple(PLACE), 4)]
    member.resume(PLACE)
    await world.app.give(4, 5, 6)
    assert await offsets(member) == [4, 5, 6]


async def test_the_last_record_that_faust_left_out_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.adapters.faust.tasks.LOOK_EVERY_S", 0.0)
    world = World()
    member = await world.member()
    world.log.end = 5
    assert await offsets(member) == []
    assert world.app.sought == [], "it may be on its way"
    assert await offsets(member) == []
    assert world.app.sought == [(tuple(PLACE), 4)]


async def test_a_commit_is_that_of_the_assignment_after_the_changes_of_tables() -> None:
    world = World()
    member = await world.member()
    world.app.consumer._thread._consumer._coordinator.generation = 9
    await member.commit({PLACE: Commit(5, "x")})
    assert world.stored[-1] == ("words", 1, "m", {PLACE: Commit(5, "x")}), "the broker refuses a past generation"
    assert world.app.flushed == len(world.stored)


async def test_a_revoked_partition_is_fenced_and_its_records_are_dropped() -> None:
    world = World()
    member = await world.member()
    await world.app.give(4)
    await world.app.on_partitions_revoked.send(world.app, {tuple(PLACE)})
    assert world.listener.now == []
    with pytest.raises(Fenced):
        await member.commit({PLACE: Commit(5)})
    await world.app.give(5)
    assert await offsets(member) == []
    world.app.consumer_generation_id = 2
    await world.app.on_partitions_assigned.send(world.app, {tuple(PLACE)})
    await world.app.give(7, generation=1)
    await member.commit({PLACE: Commit(4)})
    member.resume(PLACE)
    await world.app.give(4, generation=2)
    assert await offsets(member) == [4], "a record of the past assignment does not count"


async def test_a_member_that_closes_gives_its_partitions_up() -> None:
    world = World()
    member = await world.member()
    await member.close()
    assert world.listener.now == []
    assert member.assignment == frozenset()
