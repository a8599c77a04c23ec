"""Answers on their way to the log."""

import asyncio

import pytest

from mesh.core.record import NewRecord, StoredRecord, TopicPartition
from mesh.services.worker.held import Held, Work
from mesh.services.worker.outbox import Outbox
from mesh.wire.ports import Log
from mesh.wiring import topic_specs
from tests.services.conftest import read_all
from tests.services.worker.desk import TOPOLOGY


def work(offset: int) -> Work:
    partition = TopicPartition("mesh.tasks.echo", 0)
    return Work(StoredRecord(*partition, offset, 0, b"k", b"{}", []), Held(partition))


async def test_work_is_acknowledged_when_its_answer_is_durable_and_not_before(log: Log) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    durable: list[int] = []
    outbox = Outbox(log, TOPOLOGY, lambda done: durable.append(done.record.offset))
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
    async with asyncio.timeout(1):
        await outbox.flushed()
