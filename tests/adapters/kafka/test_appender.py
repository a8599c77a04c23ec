"""Appending where no broker is."""

import asyncio
import time
from collections.abc import Callable, Collection

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.kafka.appender import Appender
from mesh.adapters.kafka.connection import Connection
from mesh.adapters.kafka.topics import TopicDescription, Topics
from mesh.adapters.log_time import LogTime
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord


@pytest.fixture
async def appender() -> Appender:
    closed_port = Connection("127.0.0.1:1", client_id="test", security={}, request_timeout_ms=500)
    return Appender(closed_port, Topics(closed_port), LogTime(SystemClock()), timeout_ms=500, record_bytes_max=1_000)


async def test_an_appender_that_cannot_connect_says_so_and_leaves_nothing_behind(appender: Appender) -> None:
    before = asyncio.all_tasks()
    with pytest.raises(LogUnavailable, match="connect a producer"):
        await appender.start()
    await appender.close(100)
    assert asyncio.all_tasks() == before


async def test_an_appender_that_was_not_started_appends_nothing(appender: Appender) -> None:
    assert await appender.append([]) == []
    with pytest.raises(LogUnavailable, match="Call start first"):
        await appender.append([NewRecord("t", b"k", b"v")])
    await appender.close(100)


async def test_a_broker_that_never_came_is_reported_at_the_deadline(appender: Appender) -> None:
    appender._start_pump()  # as if the broker had been there at the start
    appender._counts["t"] = 1
    began = time.monotonic()
    with pytest.raises(
        LogUnavailable, match=r"append did not end; expected an answer within 500 ms, got none \(last: "
    ):
        await appender.append([NewRecord("t", b"k", b"v")])
    assert time.monotonic() - began < 5
    await appender.close(100)


class Interrupted(Topics):
    """A broker that describes every topic; meanwhile another call of the appender fails."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection)
        self.asked: list[set[str]] = []
        self.fail_others: Callable[[], None] = lambda: None

    async def describe(
        self, names: Collection[str] | None = None, *, timeout_ms: int | None = None
    ) -> dict[str, TopicDescription]:
        self.asked.append(set(names or ()))
        if len(self.asked) == 1:
            self.fail_others()
        return {name: TopicDescription({0: 1}) for name in names or ()}


async def test_partition_counts_that_another_call_makes_forgotten_are_asked_for_again() -> None:
    closed_port = Connection("127.0.0.1:1", client_id="test", security={}, request_timeout_ms=500)
    topics = Interrupted(closed_port)
    appender = Appender(closed_port, topics, LogTime(SystemClock()), timeout_ms=500, record_bytes_max=1_000)
    topics.fail_others = lambda: appender._fail_all(LogUnavailable("another call was late", where="t"))
    appender._start_pump()
    appender._counts["known"] = 1
    with pytest.raises(LogUnavailable, match="append did not end"):
        await appender.append([NewRecord("known", b"k", b"v"), NewRecord("new", b"k", b"v")])
    assert topics.asked == [{"new"}, {"known"}]
    await appender.close(100)
