"""A reader where no broker is."""

import pytest

from mesh.adapters.kafka.connection import Connection
from mesh.adapters.kafka.reader import KafkaReader
from mesh.adapters.kafka.topics import Topics
from mesh.core.errors import LogUnavailable, NotFound
from mesh.core.protocol.record import TopicPartition

CLOSED_PORT = Connection("127.0.0.1:1", client_id="test", security={}, request_timeout_ms=300)
PLACE = TopicPartition("t", 0)


@pytest.fixture
async def reader() -> KafkaReader:
    return KafkaReader(CLOSED_PORT, Topics(CLOSED_PORT), {PLACE: 7}, record_bytes_max=1_000)


async def test_a_reader_knows_its_places_before_it_connects(reader: KafkaReader) -> None:
    assert reader.position(PLACE) == 7
    reader.seek(PLACE, 9)
    assert reader.position(PLACE) == 9
    with pytest.raises(NotFound, match="t/1 is not read here"):
        reader.seek(TopicPartition("t", 1), 0)
    await reader.close()


async def test_a_reader_that_cannot_connect_says_so_each_time(reader: KafkaReader) -> None:
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="within 300 ms"):
            await reader.poll(records_max=1, wait_ms=10)
    await reader.close()
    with pytest.raises(LogUnavailable, match="the reader is closed"):
        await reader.poll(records_max=1, wait_ms=10)
