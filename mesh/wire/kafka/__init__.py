"""The log on Apache Kafka."""

from mesh.wire.kafka.log import KafkaLog

__all__ = ["KafkaLog"]
