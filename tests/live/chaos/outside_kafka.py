"""The outside of a fault test on Kafka: plain confluent-kafka. See `outside`."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from tests.live.chaos.outside import Door, Place, Seen, Sent, main

RECORD_BYTES_MAX = 1_100_000
WAIT_S = 60.0


DeliveryCallback = Callable[[KafkaError | None, Message], None]


def place_of(message: Message) -> Place:
    """Return the position of a record."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return topic, partition, offset


def _bytes(found: str | bytes | None) -> bytes | None:
    return found.encode() if isinstance(found, str) else found


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    return [(str(name), _bytes(text)) for name, text in list(message.headers() or ())]


class KafkaDoor:
    """A producer that waits for all acknowledgements, a consumer without a group of its own."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "message.max.bytes": RECORD_BYTES_MAX,
                "enable.idempotence": True,
                "linger.ms": 5,
            }
        )

    async def put(self, topic: str, records: Sequence[Sent]) -> Sequence[Place]:
        """See `Door`."""
        places: dict[int, Place] = {}

        def noting(index: int) -> DeliveryCallback:
            def note(error: KafkaError | None, message: Message) -> None:
                assert error is None, f"{records[index].id} was not taken: {error}"
                places[index] = place_of(message)

            return note

        for index, (_, _, key, value, headers) in enumerate(records):
            self._producer.produce(topic, value, key, headers=list(headers), on_delivery=noting(index))
        left = self._producer.flush(WAIT_S)
        assert left == 0, f"{left} records were not acknowledged within {WAIT_S:g} s"
        return [places[index] for index in range(len(records))]

    async def read(self, topic: str) -> Sequence[Seen]:
        """See `Door`."""
        consumer = Consumer({"bootstrap.servers": self._bootstrap, "group.id": "outside", "enable.auto.commit": False})
        found: list[Seen] = []
        try:
            partitions = [TopicPartition(topic, p, 0) for p in consumer.list_topics(topic).topics[topic].partitions]
            ends = {p.partition: consumer.get_watermark_offsets(p)[1] for p in partitions}
            consumer.assign([p for p in partitions if ends[p.partition]])
            places = dict.fromkeys((p for p, end in ends.items() if end), 0)
            while any(place < ends[p] for p, place in places.items()):
                for message in consumer.consume(1_000, 0.5):
                    assert message.error() is None, message.error()
                    place = place_of(message)
                    key, value = message.key(), message.value()
                    found.append(Seen(place, _bytes(key), _bytes(value), _headers(message)))
                    places[place[1]] = place[2] + 1
        finally:
            consumer.close()
        return found


@asynccontextmanager
async def opened(log: str, topology: str) -> AsyncIterator[Door]:
    """Open the door of a URL."""
    yield KafkaDoor(log.removeprefix("kafka://"))


if __name__ == "__main__":
    main(opened)
