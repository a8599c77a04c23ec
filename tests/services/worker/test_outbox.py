"""Answers on their way to the log."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest

from mesh.adapters.ports import Appended, Log
from mesh.app.wiring import topic_specs
from mesh.core.protocol.record import NewRecord, StoredRecord, TopicPartition
from mesh.core.topology.model import TopicRule
from mesh.services.worker import outbox as module
from mesh.services.worker.assignment import PartitionAssignment, Work
from mesh.services.worker.outbox import Outbox
from tests.services.conftest import read_all
from tests.services.worker.counting_agents import TOPOLOGY, until


def work(offset: int) -> Work:
    partition = TopicPartition("mesh.tasks.echo", 0)
    return Work(StoredRecord(*partition, offset, 0, b"k", b"{}", []), PartitionAssignment(partition))


async def test_work_is_acknowledged_when_its_answer_is_durable_and_not_before(log: Log) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    durable: list[int] = []
    outbox = Outbox(log, TOPOLOGY, lambda done: durable.extend(work.record.offset for work in done))
    for offset in range(200):
        outbox.put(NewRecord(TOPOLOGY.inbox, b"%d" % offset, b"{}"), work(offset))
    assert durable == []
    running = asyncio.create_task(outbox.run())
    async with asyncio.timeout(10):
        await outbox.flushed()
    assert sorted(durable) == list(range(200))
    assert len(await read_all(log, TOPOLOGY.inbox)) == 200
    outbox.put(NewRecord(TOPOLOGY.inbox, b"x", b"{}"), work(200))
    async with asyncio.timeout(10):
        await outbox.flushed()
    assert durable[-1] == 200
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_nothing_to_send_is_flushed_at_once(log: Log) -> None:
    outbox = Outbox(log, TOPOLOGY, lambda _: None)
    async with asyncio.timeout(20):
        await outbox.flushed()


async def test_a_caller_that_waits_for_room_waits_until_some_answers_are_durable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ANSWERS_MAX", 3)
    silent = Silent()
    outbox = Outbox(cast(Log, silent), TOPOLOGY, lambda _: None)
    running = asyncio.create_task(outbox.run())
    for offset in range(2):
        outbox.put(NewRecord(TOPOLOGY.inbox, b"k", b"{}"), work(offset))
    async with asyncio.timeout(10):
        await outbox.room()
    outbox.put(NewRecord(TOPOLOGY.inbox, b"k", b"{}"), work(2))
    waiting = asyncio.create_task(outbox.room())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    silent.speaks.set()
    async with asyncio.timeout(10):
        await waiting
    running.cancel()
    await asyncio.wait((running,))


class Silent:
    """A log that takes nothing until it is told to."""

    url = "silent"

    def __init__(self) -> None:
        self.speaks = asyncio.Event()

    async def append(self, records: Sequence[NewRecord]) -> list[Appended]:
        await self.speaks.wait()
        return [Appended(0, n) for n in range(len(records))]


async def test_while_the_log_takes_nothing_nothing_is_to_be_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STALLED_MS", 10)
    silent = Silent()
    outbox = Outbox(cast(Log, silent), TOPOLOGY, lambda _: None)
    running = asyncio.create_task(outbox.run())
    assert await outbox.flowing()
    outbox.put(NewRecord(TOPOLOGY.inbox, b"k", b"{}"), work(0))
    await until(lambda: outbox.stalled)
    waiting = asyncio.create_task(outbox.flowing())
    await asyncio.sleep(0)
    assert not waiting.done()
    silent.speaks.set()
    assert await waiting
    assert not outbox.stalled
    silent.speaks.clear()
    outbox.put(NewRecord(TOPOLOGY.inbox, b"k", b"{}"), work(1))
    await until(lambda: outbox.stalled)
    waiting = asyncio.create_task(outbox.flowing())
    await asyncio.sleep(0)
    outbox.close()
    assert not await waiting
    running.cancel()
    await asyncio.wait((running,))


@pytest.mark.parametrize(("ordered", "appends"), [(True, 1), (False, 2)])
async def test_where_events_are_ordered_one_append_of_answers_is_under_way(ordered: bool, appends: int) -> None:
    class Asked(Silent):
        asked = 0

        async def append(self, records: Sequence[NewRecord]) -> list[Appended]:
            self.asked += 1
            return await super().append(records)

    topics = {"asks": TopicRule("asks", ingress="ask", ordered=ordered)}
    silent = Asked()
    outbox = Outbox(cast(Log, silent), replace(TOPOLOGY, topics=topics), lambda _: None)
    running = asyncio.create_task(outbox.run())
    for n in range(2):
        outbox.put(NewRecord(TOPOLOGY.inbox, b"k", b"{}"), work(n))
        for _ in range(20):
            await asyncio.sleep(0)
    assert silent.asked == appends
    silent.speaks.set()
    async with asyncio.timeout(10):
        await outbox.flushed()
    running.cancel()
    await asyncio.wait((running,))
