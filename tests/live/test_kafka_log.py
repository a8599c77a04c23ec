"""The log on a real Kafka keeps the contract of every log."""

from collections.abc import AsyncIterator

import pytest

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.kafka.connection import ended_within
from mesh.adapters.kafka.member import KafkaMember
from mesh.adapters.ports import Member
from tests.adapters.log_contract import LogContract
from tests.adapters.log_kit import OpenLog

pytestmark = pytest.mark.live


class TestKafkaLog(LogContract):
    @pytest.fixture
    async def open_log(self, kafka_bootstrap: str) -> AsyncIterator[OpenLog]:
        logs: list[KafkaLog] = []

        async def open_log() -> KafkaLog:
            logs.append(KafkaLog(kafka_bootstrap, client_id="contract"))
            await logs[-1].start()
            return logs[-1]

        yield open_log
        for log in logs:
            await log.close()

    async def abandon(self, member: Member) -> None:
        """Cut the connections: heartbeats end and no farewell is sent."""
        assert isinstance(member, KafkaMember)
        member.closed = True
        for task in member._tasks():
            task.cancel()
        await ended_within(1_000, member._consumer._client.close())
        member._consumer._closed = True
