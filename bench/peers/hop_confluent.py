"""hop by hand on confluent-kafka (librdkafka, C): consume, produce, flush, one commit a batch. At least once."""

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer

from bench.peers.work import Hop, hop, worked

RECORDS_MAX = 10_000


class Refusals:
    """Answers that were not appended."""

    def __init__(self) -> None:
        self.first: KafkaError | None = None

    def __call__(self, error: KafkaError | None, _: Message) -> None:
        self.first = self.first or error


def serve(options: Hop) -> None:
    """For ever. Raises KafkaException when the broker refuses."""
    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap,
            "group.id": options.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": options.session_ms,
        }
    )
    refusals = Refusals()
    producer = Producer(
        {
            "bootstrap.servers": options.bootstrap,
            "acks": "all",
            "linger.ms": 1,
            "queue.buffering.max.messages": 10 * RECORDS_MAX,
            "delivery.report.only.error": True,
            "on_delivery": refusals,
        }
    )
    consumer.subscribe([options.source])
    slow = options.slowness
    while True:
        got = consumer.consume(8 if slow.work_ms else RECORDS_MAX, 0.02)
        for message in got:
            if error := message.error():
                raise KafkaException(error)
            slow.block()
            producer.produce(options.target, key=message.key(), value=worked(message.value() or b""))
        if got:
            producer.flush()
            if refusals.first is not None:
                raise KafkaException(refusals.first)
            consumer.commit(asynchronous=False)


if __name__ == "__main__":
    serve(hop())
