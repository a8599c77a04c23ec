"""A member where no broker is."""

import asyncio

import pytest

from mesh.adapters.kafka.connection import Connection
from mesh.adapters.kafka.member import KafkaMember
from mesh.adapters.ports import Commit
from mesh.core.errors import Fenced, InvalidInput, LogUnavailable
from mesh.core.protocol.record import TopicPartition
from tests.adapters.log_kit import Recorder

CLOSED_PORT = Connection("127.0.0.1:1", client_id="test", security={}, request_timeout_ms=500)
PLACE = TopicPartition("t", 0)


def member() -> KafkaMember:
    return KafkaMember(CLOSED_PORT, "g", ["t"], Recorder(), session_timeout_ms=6_000, record_bytes_max=2_000_000)


async def test_a_member_that_cannot_connect_says_so_and_leaves_nothing_behind() -> None:
    one, before = member(), asyncio.all_tasks()
    with pytest.raises(LogUnavailable, match="connect a member of g failed"):
        await one.start()
    await one.close()
    assert asyncio.all_tasks() == before


async def test_a_member_without_partitions_may_touch_none() -> None:
    one = member()
    assert one.assignment == frozenset()
    assert one.position(PLACE) is None
    with pytest.raises(Fenced, match="not the owner of t/0"):
        one.seek(PLACE, 0)
    with pytest.raises(Fenced, match="not the owner of t/0"):
        await one.commit({PLACE: Commit(1)})
    await one.commit({})
    with pytest.raises(InvalidInput, match="at most 4096 bytes, got 4098 bytes"):
        await one.commit({PLACE: Commit(1, "é" * 2_049)})
    await one.close()
    await one.close()


async def test_the_settings_that_aiokafka_has_wrong_are_said() -> None:
    one = member()
    consumer = one._consumer
    assert consumer._enable_auto_commit is False
    assert consumer._auto_offset_reset == "earliest"
    assert consumer._isolation_level == "read_committed"
    assert consumer._key_deserializer is None
    assert consumer._value_deserializer is None
    assert consumer._partition_assignment_strategy[0].name == "sticky"
    assert consumer._max_partition_fetch_bytes == 2_000_000
    await one.close()
