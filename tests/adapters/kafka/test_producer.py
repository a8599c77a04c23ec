"""The end of a producer, without a broker."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, errors
from aiokafka.structs import TopicPartition

from mesh.adapters.kafka.producer import kill

PLACE = TopicPartition("t", 0)


async def test_a_batch_that_was_about_to_be_tried_again_is_reported_without_output() -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
    accumulator = producer._message_accumulator
    builder = producer.create_batch()
    builder.append(timestamp=None, key=b"k", value=b"v", headers=[])
    future = await accumulator.add_batch(builder, PLACE, 1)
    accumulator.reenqueue(accumulator._pop_batch(PLACE))
    await kill(producer)
    with pytest.raises(errors.ProducerClosed):
        await future
    await asyncio.sleep(0)
    assert not complaints
