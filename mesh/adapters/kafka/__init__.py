"""The log on Apache Kafka."""

from mesh.adapters.kafka.log import KafkaLog

__all__ = ["KafkaLog"]
