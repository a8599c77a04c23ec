"""The log on Apache Kafka."""

from mesh.adapters.kafka.log import KafkaLog
from mesh.adapters.kafka.read_log import KafkaReadLog

__all__ = ["KafkaLog", "KafkaReadLog"]
