"""Questions about topics where no broker is, and how the broker's description of one is read."""

import pytest
from aiokafka import errors

from mesh.adapters.kafka.connection import Connection
from mesh.adapters.kafka.topics import TopicDescription, Topics, _describe
from mesh.core.errors import LogUnavailable

CLOSED_PORT = Connection("127.0.0.1:1", client_id="test", security={}, request_timeout_ms=300)


async def test_an_administrator_that_cannot_connect_says_so() -> None:
    topics = Topics(CLOSED_PORT)
    with pytest.raises(LogUnavailable, match=r"connect failed.*127\.0\.0\.1:1"):
        await topics.start()
    with pytest.raises(LogUnavailable, match=r"describe topics did not end.*300 ms"):
        await topics.describe(["t"])
    await topics.close(1_000)


def test_a_description_keeps_partitions_that_have_no_leader() -> None:
    answer = {
        "topic": "t",
        "error_code": 0,
        "is_internal": False,
        "partitions": [{"partition": 0, "leader": 3}, {"partition": 1, "leader": -1}],
    }
    assert _describe(answer) == TopicDescription({0: 3, 1: -1})
    assert _describe({**answer, "error_code": 3, "partitions": []}) == TopicDescription(
        {}, errors.UnknownTopicOrPartitionError
    )
    assert _describe({**answer, "is_internal": True}).internal
